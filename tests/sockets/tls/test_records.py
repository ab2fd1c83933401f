"""``sockets.tls.records``: ciphertext in, plaintext out, and back, on memory alone; by each engine."""

from __future__ import annotations

import contextlib
import os
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.certificates import Certificates
from tests.clients import Background
from tests.engines import loaded

from everserve.sockets.tls import TLS
from everserve.sockets.tls.records import RECORD

MEBIBYTE = 1 << 20
ALL = 1 << 30
"""A size for `read` that asks for all there is."""

GARBAGE = b"\x17\x03\x03\x00\x20" + b"j" * 32
"""A record that was not encrypted with the keys."""

PLENTY = settings(max_examples=60, suppress_health_check=list(HealthCheck))


class Peer:
    """The standard library's end of a connection, with the methods of `Records` for the handshake."""

    def __init__(self, context: ssl.SSLContext, server_side: bool) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side else "localhost"
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side, name)

    def do_handshake(self) -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def feed(self, ciphertext: bytes) -> None:
        self._incoming.write(ciphertext)

    def take_output(self) -> bytes:
        return self._outgoing.read()

    def encrypt(self, *messages: bytes, end: bool = False) -> bytes:
        """Each message in records of its own; at the `end`, close_notify."""
        for message in messages:
            self.tls.write(message)
        if end:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.unwrap()
        return self._outgoing.read()

    def decrypt(self, ciphertext: bytes) -> bytes:
        """All plaintext of these whole records."""
        self._incoming.write(ciphertext)
        parts = []
        with contextlib.suppress(ssl.SSLWantReadError):
            while part := self.tls.read(RECORD):
                parts.append(part)
        return b"".join(parts)


def cut(ciphertext: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """`ciphertext` in pieces of these sizes, the last as long as it comes."""
    for size in sizes:
        if not ciphertext:
            return
        yield ciphertext[:size]
        ciphertext = ciphertext[size:]
    if ciphertext:
        yield ciphertext


def handshake(client: Any, server: Any, piece: int = ALL) -> None:
    """Do the handshake, each receiving from the other in pieces of this size."""
    done = dict.fromkeys((client, server), False)
    receiver, sender = server, client
    done[sender] = sender.do_handshake()
    while not all(done.values()):
        ciphertext = sender.take_output()
        assert ciphertext, "neither has output"
        for part in cut(ciphertext, cycle([piece])):
            receiver.feed(part)
            done[receiver] = done[receiver] or receiver.do_handshake()
        receiver, sender = sender, receiver


Ends = tuple[Any, Peer]


def server_of(kind: Any, tls: TLS, context: ssl.SSLContext) -> Ends:
    """The server's records and a client after the handshake, without output."""
    server = kind(tls.context, True, None, None)
    client = Peer(context, False)
    handshake(client, server)
    client.feed(server.take_output())  # tickets
    return server, client


@pytest.fixture
def ends(parts: Any, tls: TLS, context: ssl.SSLContext) -> Ends:
    return server_of(parts.Records, tls, context)


# --- the handshake -----------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, 4, 5, 6, 100, 1000, ALL])
@pytest.mark.parametrize("side", ["server", "client", "both"])
def test_a_handshake_in_any_pieces(
    parts: Any, tls: TLS, context: ssl.SSLContext, side: str, piece: int
) -> None:
    def ours(server_side: bool) -> Any:
        if server_side:
            return parts.Records(tls.context, True, None, None)
        return parts.Records(context, False, "localhost", None)

    client: Any = Peer(context, False) if side == "server" else ours(False)
    server: Any = Peer(tls.context, True) if side == "client" else ours(True)
    handshake(client, server, piece)
    assert client.tls.version() == server.tls.version() is not None
    # The last output of the handshake, such as tickets, is still to be sent.
    if side == "both":
        assert client.read(server.take_output() + server.write(b"hello"), 100) == b"hello"
        assert server.read(client.take_output() + client.write(b"HELLO"), 100) == b"HELLO"


def test_who_waits_for_the_peer_sends_nothing(
    parts: Any, tls: TLS, context: ssl.SSLContext
) -> None:
    server = parts.Records(tls.context, True, None, None)
    assert not server.do_handshake()
    assert not server.has_output
    assert not server.has_input
    client = parts.Records(context, False, "localhost", None)
    assert not client.do_handshake()
    assert client.has_output
    assert client.take_output()
    assert not client.has_output
    assert not client.do_handshake()


def test_what_is_no_handshake_is_refused_with_an_alert(parts: Any, tls: TLS) -> None:
    server = parts.Records(tls.context, True, None, None)
    server.feed(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ssl.SSLError, match=r"(?i)http.request"):
        server.do_handshake()


def test_a_certificate_that_is_not_trusted(parts: Any, tls: TLS) -> None:
    client = parts.Records(ssl.create_default_context(), False, "localhost", None)
    server = Peer(tls.context, True)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(client, server)
    assert client.has_output
    server.feed(client.take_output())
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        server.do_handshake()


def test_a_session_is_resumed(parts: Any, tls: TLS, context: ssl.SSLContext) -> None:
    session = None
    for again in (False, True):
        client = parts.Records(context, False, "localhost", session)
        server = parts.Records(tls.context, True, None, None)
        handshake(client, server)
        assert client.read(server.write(b"x"), 10) == b"x"
        assert client.tls.session_reused is server.tls.session_reused is again
        session = client.tls.session
        assert session.has_ticket


def test_data_behind_the_end_of_the_handshake(
    parts: Any, tls: TLS, certificates: Certificates
) -> None:
    """What came in one piece with the client's Finished is not lost, and is reported as input."""
    server = parts.Records(tls.context, True, None, None)
    client = Peer(certificates.client_context(), False)
    client.do_handshake()
    server.feed(client.take_output())
    assert not server.do_handshake()
    client.feed(server.take_output())
    assert client.do_handshake()
    server.feed(client.encrypt(b"early", b"bird"))
    assert server.do_handshake()
    assert server.has_input
    assert server.has_output, "the tickets wait"
    assert server.read(b"", 100) == b"earlybird"
    assert not server.has_input
    answer = server.write(b"worm")
    assert not server.has_output
    assert client.decrypt(answer) == b"worm"
    assert client.tls.session is not None
    assert client.tls.session.has_ticket


# --- sizes -------------------------------------------------------------------------------------

SIZES = [0, 1, RECORD - 1, RECORD, RECORD + 1, 6 * RECORD, MEBIBYTE]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", [bytes, memoryview])
def test_plain_text_of_any_size_out(ends: Ends, size: int, form: Callable[..., Any]) -> None:
    ours, peer = ends
    data = os.urandom(size)
    ciphertext = ours.write(form(data))
    assert bool(ciphertext) is bool(size)
    assert not ours.has_output
    assert count_records(ciphertext) == -(-size // RECORD)
    assert peer.decrypt(ciphertext) == data


def count_records(ciphertext: bytes) -> int:
    """How many records these are; all must be whole."""
    count = 0
    while ciphertext:
        size = 5 + int.from_bytes(ciphertext[3:5])
        assert len(ciphertext) >= size
        ciphertext = ciphertext[size:]
        count += 1
    return count


@pytest.mark.parametrize("size", SIZES[1:])
def test_plain_text_of_any_size_in(ends: Ends, size: int) -> None:
    ours, peer = ends
    data = os.urandom(size)
    assert ours.read(peer.encrypt(data), ALL) == data
    assert not ours.has_input
    assert ours.read(b"", ALL) is None


@pytest.mark.parametrize("size", SIZES[1:])
def test_both_sides_may_be_ours(parts: Any, tls: TLS, context: ssl.SSLContext, size: int) -> None:
    server = parts.Records(tls.context, True, None, None)
    client = parts.Records(context, False, "localhost", None)
    handshake(client, server)
    data = os.urandom(size)
    assert client.read(server.write(data), ALL) == data
    assert server.read(client.write(data), ALL) == data


@PLENTY
@given(
    st.lists(st.integers(1, 40_000), max_size=6),
    st.lists(st.integers(1, 40_000), max_size=12),
    st.lists(st.integers(1, 70_000), max_size=4),
)
def test_any_cut_and_any_sizes_asked_give_the_same(
    parts: Any,
    tls: TLS,
    context: ssl.SSLContext,
    sizes: list[int],
    cuts: list[int],
    asked: list[int],
) -> None:
    ours, peer = server_of(parts.Records, tls, context)
    messages = [os.urandom(size) for size in sizes]
    ask = cycle([*asked, 20_000])
    got = []
    for piece in cut(peer.encrypt(*messages, end=True), cuts):
        wanted = next(ask)
        found = ours.read(piece, wanted)
        while found:
            assert len(found) <= wanted
            got.append(found)
            wanted = next(ask)
            found = ours.read(b"", wanted)
        assert (found is None) is not ours.close_notify_received
    assert b"".join(got) == b"".join(messages)
    assert ours.close_notify_received
    assert not ours.broken


# --- input ---------------------------------------------------------------------------------------


def test_a_record_larger_than_what_is_asked_for(ends: Ends) -> None:
    ours, peer = ends
    assert ours.read(peer.encrypt(b"0123456789"), 3) == b"012"
    assert ours.has_input
    assert ours.read(b"", 3) == b"345"
    assert ours.has_input
    assert ours.read(b"", 1000) == b"6789"
    assert not ours.has_input
    assert ours.read(b"", 1000) is None


def test_a_record_read_to_its_last_byte(ends: Ends) -> None:
    ours, peer = ends
    assert ours.read(peer.encrypt(b"0123456789"), 10) == b"0123456789"
    assert not ours.has_input
    assert ours.read(b"", 10) is None


def test_new_records_behind_the_rest_of_one(ends: Ends) -> None:
    ours, peer = ends
    assert ours.read(peer.encrypt(b"0123456789"), 3) == b"012"
    assert ours.read(peer.encrypt(b"abc"), 4) == b"3456"
    assert ours.read(peer.encrypt(b"def"), 3) == b"789"
    assert read_up(ours) == b"abcdef"


def read_up(ours: Any, size: int = ALL) -> bytes:
    """All plaintext that was received."""
    got = b""
    while part := ours.read(b"", size):
        got += part
    return got


MESSAGES = [b"one", b"two", bytes(RECORD), b"the last"]


def test_all_records_of_one_piece_come_at_once(ends: Ends) -> None:
    ours, peer = ends
    for _ in range(3):
        assert ours.read(peer.encrypt(*MESSAGES), ALL) == b"".join(MESSAGES)
        assert not ours.has_input


@pytest.mark.parametrize("messages", [MESSAGES, MESSAGES[:2], MESSAGES * 3])
def test_the_rest_of_all_records_comes_at_once(ends: Ends, messages: list[bytes]) -> None:
    ours, peer = ends
    assert ours.read(peer.encrypt(*messages), 5) == b"onetw"
    assert ours.read(b"", ALL) == b"".join(messages)[5:]
    assert not ours.has_input


@pytest.mark.parametrize("size", [1, 4, 5, 6, 20])
def test_a_record_that_has_begun(ends: Ends, size: int) -> None:
    ours, peer = ends
    ciphertext = peer.encrypt(b"a message")
    assert ours.read(ciphertext[:size], 100) is None
    assert ours.has_input
    assert ours.read(b"", 100) is None
    assert ours.has_input
    assert ours.read(ciphertext[size:-1], 100) is None
    assert ours.has_input
    assert ours.read(ciphertext[-1:], 100) == b"a message"
    assert not ours.has_input


def test_records_before_one_that_has_begun(ends: Ends) -> None:
    ours, peer = ends
    ciphertext = peer.encrypt(*MESSAGES)
    assert ours.read(ciphertext[:-1], ALL) == b"".join(MESSAGES[:-1])
    assert ours.has_input
    assert ours.read(b"", ALL) is None
    assert ours.read(ciphertext[-1:] + peer.encrypt(b"more"), ALL) == b"the lastmore"
    assert not ours.has_input


def test_reading_ahead(ends: Ends) -> None:
    ours, peer = ends
    assert ours.read_ahead() == 0
    ciphertext = peer.encrypt(b"first", b"second")
    assert ours.read_ahead(ciphertext[:-1]) == 5
    assert ours.has_input
    assert ours.read_ahead(ciphertext[-1:]) == ours.read_ahead() == 11
    assert ours.read(b"", 3) == b"fir"
    assert ours.read_ahead() == 8
    assert ours.read(peer.encrypt(b"!"), ALL) == b"stsecond"
    assert ours.read(b"", ALL) == b"!"
    assert not ours.has_input


def test_forgetting_what_was_read_ahead(ends: Ends) -> None:
    ours, peer = ends
    assert ours.read_ahead(peer.encrypt(b"not wanted any more")) == 19
    ours.drop_ahead()
    assert not ours.has_input
    assert ours.read_ahead() == 0
    assert ours.read(b"", ALL) is None
    assert ours.read(peer.encrypt(b"this"), ALL) == b"this"


def test_nothing_is_locked_between_two_calls(ends: Ends) -> None:
    ours, peer = ends
    assert not ours.locked
    ours.read(peer.encrypt(b"x"), 1)
    ours.write(b"x")
    assert not ours.locked
    with pytest.raises(ssl.SSLError):
        ours.read(GARBAGE, 1)
    with pytest.raises(BrokenPipeError):
        ours.write(b"x")
    assert not ours.locked


def test_a_reader_beside_a_writer(ends: Ends) -> None:
    ours, peer = ends
    there, back = os.urandom(MEBIBYTE), os.urandom(MEBIBYTE)
    ciphertext = peer.encrypt(there)
    begin = threading.Barrier(2)

    def read() -> bytes:
        begin.wait()
        return b"".join(ours.read(piece, ALL) or b"" for piece in cut(ciphertext, cycle([5000])))

    def write() -> bytes:
        begin.wait()
        parts = (ours.write(back[at : at + 5000]) for at in range(0, MEBIBYTE, 5000))
        return b"".join(parts)

    reading, writing = Background(read), Background(write)
    assert reading.result() == there
    assert peer.decrypt(writing.result()) == back


@pytest.mark.parametrize("together", [True, False])
def test_output_of_openssl_besides_data(
    parts: Any, certificates: Certificates, together: bool
) -> None:
    """A client that is asked for its certificate (RFC 8446, 4.6.2) answers while it reads."""
    context = certificates.client_context(certificates.client)
    context.post_handshake_auth = True
    asking = TLS(*certificates.server, client_ca=certificates.authority).context
    asking.post_handshake_auth = True  # and not in the handshake
    client = parts.Records(context, False, "localhost", None)
    server = Peer(asking, True)
    handshake(client, server)
    assert client.read(server.take_output() + server.encrypt(b"hello"), 100) == b"hello"
    assert server.decrypt(client.take_output() + client.write(b"hello")) == b"hello"
    assert not client.has_output
    server.tls.verify_client_post_handshake()
    assert server.do_handshake()
    if together:
        assert client.read(server.encrypt(b"data"), 100) == b"data"
    else:
        assert client.read(server.take_output(), 100) is None
    assert client.has_output
    assert not server.tls.getpeercert()
    ciphertext = client.write(b"afterwards")
    assert not client.has_output
    assert server.decrypt(ciphertext) == b"afterwards"
    assert server.tls.getpeercert()


# --- what breaks TLS ---------------------------------------------------------------------------


@pytest.mark.parametrize("garbage", [GARBAGE, b"garbage without a record"])
@pytest.mark.parametrize("messages", [[b"good"], MESSAGES, [bytes(MEBIBYTE)]])
def test_what_breaks_tls_is_raised_behind_the_data(
    ends: Ends, garbage: bytes, messages: list[bytes]
) -> None:
    ours, peer = ends
    assert ours.read(peer.encrypt(*messages) + garbage, ALL) == b"".join(messages)
    assert ours.broken
    assert ours.has_input
    assert ours.has_output
    with pytest.raises(BrokenPipeError):
        ours.write(b"x")
    with pytest.raises(ssl.SSLError, match=r"(?i)record|version"):
        ours.read(b"", ALL)
    for more in (b"", peer.encrypt(b"more")):
        with pytest.raises(ssl.SSLError, match="the stream was broken before"):
            ours.read(more, ALL)
    assert ours.broken
    assert not ours.close_notify_received
    alert = ours.take_output()
    assert not ours.has_output
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        peer.decrypt(alert)


def test_what_breaks_tls_at_once(ends: Ends) -> None:
    ours, peer = ends
    with pytest.raises(ssl.SSLError, match=r"(?i)record"):
        ours.read(GARBAGE, ALL)
    assert ours.broken
    assert ours.has_output
    with pytest.raises(ssl.SSLError, match="the stream was broken before"):
        ours.read(b"", ALL)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        peer.decrypt(ours.take_output())


def test_what_breaks_tls_behind_data_that_was_read_ahead(ends: Ends) -> None:
    ours, peer = ends
    ours.raise_deferred()
    assert ours.read_ahead(peer.encrypt(b"good", b"more") + GARBAGE) == 8
    assert ours.broken
    with pytest.raises(ssl.SSLError, match=r"(?i)record"):
        ours.raise_deferred()
    assert ours.read(b"", 3) == b"goo"
    assert ours.read(b"", ALL) == b"dmore"
    with pytest.raises(ssl.SSLError, match=r"(?i)record"):
        ours.read(b"", ALL)
    assert ours.read_ahead() == 0


def test_no_close_notify_where_tls_is_broken(ends: Ends) -> None:
    ours, _peer = ends
    assert ours.read_ahead(GARBAGE) == 0
    ours.take_output()
    ours.write_close_notify()
    assert not ours.close_notify_sent
    assert not ours.has_output


# --- the end -----------------------------------------------------------------------------------


def test_the_peer_sends_close_notify(ends: Ends) -> None:
    ours, peer = ends
    assert not ours.close_notify_received
    assert ours.read(peer.encrypt(end=True), ALL) == b""
    assert ours.close_notify_received
    assert ours.has_input
    assert ours.read(b"", ALL) == b""
    assert not ours.broken
    if peer.tls.version() == "TLSv1.3":  # which knows a half-closed connection
        assert ours.write(b"still here")


@pytest.mark.parametrize("size", [3, RECORD, ALL])
def test_the_end_comes_behind_the_data(ends: Ends, size: int) -> None:
    ours, peer = ends
    got = ours.read(peer.encrypt(*MESSAGES, end=True), size)
    assert got + read_up(ours, size) == b"".join(MESSAGES)
    assert ours.close_notify_received
    assert ours.read(b"", size) == b""


def test_the_end_that_was_read_ahead(ends: Ends) -> None:
    ours, peer = ends
    assert ours.read_ahead(peer.encrypt(b"data", end=True)) == 4
    assert ours.close_notify_received
    assert ours.read(b"", ALL) == b"data"
    assert ours.read(b"", ALL) == b""


def test_close_notify_ends_writing(ends: Ends) -> None:
    ours, peer = ends
    ciphertext = ours.write(b"the last")
    assert not ours.close_notify_sent
    ours.write_close_notify()
    assert ours.close_notify_sent
    assert ours.has_output
    with pytest.raises(BrokenPipeError):
        ours.write(b"more")
    with pytest.raises(BrokenPipeError):
        ours.write(bytes(MEBIBYTE))
    with pytest.raises(BrokenPipeError):
        ours.write(b"")
    close_notify = ours.take_output()
    ours.write_close_notify()
    assert not ours.has_output, "it is sent once"
    assert peer.decrypt(ciphertext) == b"the last"
    peer.feed(close_notify)
    assert peer.tls.read(1) == b""


def test_reading_goes_on_behind_ones_own_close_notify(ends: Ends) -> None:
    ours, peer = ends
    ours.write_close_notify()
    assert ours.read(peer.encrypt(b"data", b"more"), ALL) == b"datamore"
    assert not ours.close_notify_received
    peer.feed(ours.take_output())
    assert ours.read(peer.encrypt(end=True), ALL) == b""
    assert ours.close_notify_received


@pytest.mark.parametrize("size", [1, 4, 5])
def test_close_notify_loses_nothing(ends: Ends, size: int) -> None:
    """Not of what was received, but not read; a record that has begun is completed after it."""
    ours, peer = ends
    ciphertext = peer.encrypt(b"0123456789", b"abc", b"begun")
    assert ours.read(ciphertext[:-3], size) == b"0123456789"[:size]
    ours.write_close_notify()
    assert ours.close_notify_sent
    assert read_up(ours) == b"0123456789abc"[size:]
    found = ours.read(ciphertext[-3:], ALL)
    assert found
    assert found + read_up(ours) == b"begun"
    peer.feed(ours.take_output())
    assert peer.tls.read(1) == b""


@pytest.mark.parametrize("clear", [b"in clear", GARBAGE, GARBAGE + b"and more", b"\x17"])
@pytest.mark.parametrize("together", [True, False])
def test_what_came_in_clear_behind_the_end(ends: Ends, clear: bytes, together: bool) -> None:
    ours, peer = ends
    ciphertext = peer.encrypt(b"data", end=True)
    if together:
        assert ours.read(ciphertext + clear, ALL) == b"data"
        assert ours.read(b"", ALL) == b""
    else:
        assert ours.read(ciphertext, ALL) == b"data"
        assert ours.read(b"", ALL) == b""
        assert ours.read(clear, ALL) == b""
    assert ours.surplus() == clear
    assert ours.surplus() == b""


def test_nothing_came_behind_the_end(ends: Ends) -> None:
    ours, peer = ends
    assert ours.read(peer.encrypt(end=True), ALL) == b""
    assert ours.surplus() == b""


# --- both implementations do the same -----------------------------------------------------------

SMALL, LARGE = st.integers(1, 60), st.integers(1, 3 * RECORD)
SIZE = st.one_of(SMALL, LARGE)
STEPS = st.one_of(
    st.tuples(st.just("send"), SIZE),
    st.tuples(st.just("send"), SIZE),
    st.tuples(st.just("receive"), SIZE, SIZE),
    st.tuples(st.just("receive"), st.just(ALL), SIZE),
    st.tuples(st.just("receive"), st.just(ALL), st.just(ALL)),
    st.tuples(st.just("read"), SIZE),
    st.tuples(st.just("ahead"), SIZE),
    st.tuples(st.just("write"), st.one_of(st.just(0), SIZE)),
    st.sampled_from(
        [("drop",), ("take_output",), ("close",), ("deferred",), ("end",), ("garbage",)]
    ),
)
FLAGS = (
    "has_input",
    "has_output",
    "close_notify_received",
    "close_notify_sent",
    "broken",
    "locked",
)


class Actor:
    """One implementation with its peer, led through a script."""

    def __init__(self, ours: Any, peer: Peer) -> None:
        self._ours, self._peer = ours, peer
        self._wire = b""
        self._over = False

    def do(self, step: tuple[Any, ...]) -> object:
        """What a step gave, or raised; and what is to be seen afterwards."""
        name, *arguments = step
        try:
            result = getattr(self, name)(*arguments)
        except ssl.SSLError as error:
            result = type(error), getattr(error, "reason", None), error.args[0]
        except OSError as error:
            result = type(error), error.args
        return step, result, [(flag, getattr(self._ours, flag)) for flag in FLAGS]

    def send(self, size: int) -> None:
        if not self._over:
            self._wire += self._peer.encrypt(bytes(at % 251 for at in range(size)))

    def end(self) -> None:
        if not self._over:
            self._wire += self._peer.encrypt(end=True)
            self._over = True

    def garbage(self) -> None:
        self._wire += GARBAGE
        self._over = True

    def receive(self, size: int, asked: int) -> bytes | None:
        return self._ours.read(self._take(size), asked)  # type: ignore[no-any-return]

    def read(self, asked: int) -> bytes | None:
        return self._ours.read(b"", asked)  # type: ignore[no-any-return]

    def ahead(self, size: int) -> int:
        return self._ours.read_ahead(self._take(size))  # type: ignore[no-any-return]

    def write(self, size: int) -> int:
        return len(self._ours.write(bytes(size)))

    def drop(self) -> None:
        self._ours.drop_ahead()

    def take_output(self) -> int:
        return len(self._ours.take_output())

    def close(self) -> None:
        self._ours.write_close_notify()

    def deferred(self) -> None:
        self._ours.raise_deferred()

    def surplus(self) -> bytes:
        found: bytes = self._ours.surplus()
        return found if self._ours.close_notify_received else b""

    def _take(self, size: int) -> bytes:
        taken, self._wire = self._wire[:size], self._wire[size:]
        return taken


@settings(PLENTY, max_examples=200)
@given(st.lists(STEPS, max_size=25))
def test_the_compiled_one_does_as_its_reference(
    tls: TLS, context: ssl.SSLContext, script: list[tuple[Any, ...]]
) -> None:
    kinds = [loaded(name).Records for name in ("python", "native")]
    actors = [Actor(*server_of(kind, tls, context)) for kind in kinds]
    for step in (*script, ("receive", ALL, ALL), ("read", ALL), ("surplus",)):
        expected, got = (actor.do(step) for actor in actors)
        assert got == expected
