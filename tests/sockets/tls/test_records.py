"""``sockets.tls.records``: ciphertext in, plain text out, and back, on memory alone; by each engine."""

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
"""Asked of `read` for whatever there is."""

JUNK = b"\x17\x03\x03\x00\x20" + b"j" * 32
"""A record that no key has sealed."""

PLENTY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


class Peer:
    """The standard library's end of a connection, with the words of `Records` for the handshake."""

    def __init__(self, context: ssl.SSLContext, server_side: bool) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side else "localhost"
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side, name)

    def agree(self) -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def hold(self, sealed: bytes) -> None:
        self._incoming.write(sealed)

    def outgoing(self) -> bytes:
        return self._outgoing.read()

    def seal(self, *messages: bytes, end: bool = False) -> bytes:
        """Each message in records of its own; at the `end`, close_notify."""
        for message in messages:
            self.tls.write(message)
        if end:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.unwrap()
        return self._outgoing.read()

    def open(self, sealed: bytes) -> bytes:
        """All plain text of these whole records."""
        self._incoming.write(sealed)
        parts = []
        with contextlib.suppress(ssl.SSLWantReadError):
            while part := self.tls.read(RECORD):
                parts.append(part)
        return b"".join(parts)


def cut(sealed: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """`sealed` in pieces of these sizes, the last as long as it comes."""
    for size in sizes:
        if not sealed:
            return
        yield sealed[:size]
        sealed = sealed[size:]
    if sealed:
        yield sealed


def shake(client: Any, server: Any, piece: int = ALL) -> None:
    """Have both agree, each told of the other in pieces of this size."""
    done = dict.fromkeys((client, server), False)
    listener, speaker = server, client
    done[speaker] = speaker.agree()
    while not all(done.values()):
        sealed = speaker.outgoing()
        assert sealed, "neither has anything to say"
        for part in cut(sealed, cycle([piece])):
            listener.hold(part)
            done[listener] = done[listener] or listener.agree()
        listener, speaker = speaker, listener


Ends = tuple[Any, Peer]


def server_of(kind: Any, tls: TLS, context: ssl.SSLContext) -> Ends:
    """The server's records and a client, agreed, with nothing left to say."""
    server = kind(tls.context, True, None, None)
    client = Peer(context, False)
    shake(client, server)
    client.hold(server.outgoing())  # tickets
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
    shake(client, server, piece)
    assert client.tls.version() == server.tls.version() is not None
    # What it has to say at the end, as tickets, is still there to be sent.
    if side == "both":
        assert client.read(server.outgoing() + server.write(b"hello"), 100) == b"hello"
        assert server.read(client.outgoing() + client.write(b"HELLO"), 100) == b"HELLO"


def test_who_listens_says_nothing_first(parts: Any, tls: TLS, context: ssl.SSLContext) -> None:
    server = parts.Records(tls.context, True, None, None)
    assert not server.agree()
    assert not server.speaking
    assert not server.holding
    client = parts.Records(context, False, "localhost", None)
    assert not client.agree()
    assert client.speaking
    assert client.outgoing()
    assert not client.speaking
    assert not client.agree()


def test_what_is_no_handshake_is_refused_with_an_alert(parts: Any, tls: TLS) -> None:
    server = parts.Records(tls.context, True, None, None)
    server.hold(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ssl.SSLError, match=r"(?i)http.request"):
        server.agree()


def test_a_certificate_that_is_not_trusted(parts: Any, tls: TLS) -> None:
    client = parts.Records(ssl.create_default_context(), False, "localhost", None)
    server = Peer(tls.context, True)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(client, server)
    assert client.speaking
    server.hold(client.outgoing())
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        server.agree()


def test_a_session_is_resumed(parts: Any, tls: TLS, context: ssl.SSLContext) -> None:
    session = None
    for again in (False, True):
        client = parts.Records(context, False, "localhost", session)
        server = parts.Records(tls.context, True, None, None)
        shake(client, server)
        assert client.read(server.write(b"x"), 10) == b"x"
        assert client.tls.session_reused is server.tls.session_reused is again
        session = client.tls.session
        assert session.has_ticket


def test_data_behind_the_end_of_the_handshake(
    parts: Any, tls: TLS, certificates: Certificates
) -> None:
    """What came in one piece with the client's Finished is not lost, and known to be here."""
    server = parts.Records(tls.context, True, None, None)
    client = Peer(certificates.client_context(), False)
    client.agree()
    server.hold(client.outgoing())
    assert not server.agree()
    client.hold(server.outgoing())
    assert client.agree()
    server.hold(client.seal(b"early", b"bird"))
    assert server.agree()
    assert server.holding
    assert server.speaking, "the tickets wait"
    assert server.read(b"", 100) == b"earlybird"
    assert not server.holding
    answer = server.write(b"worm")
    assert not server.speaking
    assert client.open(answer) == b"worm"
    assert client.tls.session is not None
    assert client.tls.session.has_ticket


# --- sizes -------------------------------------------------------------------------------------

SIZES = [0, 1, RECORD - 1, RECORD, RECORD + 1, 6 * RECORD, MEBIBYTE]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", [bytes, memoryview])
def test_plain_text_of_any_size_out(ends: Ends, size: int, form: Callable[..., Any]) -> None:
    ours, peer = ends
    data = os.urandom(size)
    sealed = ours.write(form(data))
    assert bool(sealed) is bool(size)
    assert not ours.speaking
    assert count_records(sealed) == -(-size // RECORD)
    assert peer.open(sealed) == data


def count_records(sealed: bytes) -> int:
    """How many records these are; all must be whole."""
    count = 0
    while sealed:
        size = 5 + int.from_bytes(sealed[3:5])
        assert len(sealed) >= size
        sealed = sealed[size:]
        count += 1
    return count


@pytest.mark.parametrize("size", SIZES[1:])
def test_plain_text_of_any_size_in(ends: Ends, size: int) -> None:
    ours, peer = ends
    data = os.urandom(size)
    assert ours.read(peer.seal(data), ALL) == data
    assert not ours.holding
    assert ours.read(b"", ALL) is None


@pytest.mark.parametrize("size", SIZES[1:])
def test_both_sides_may_be_ours(parts: Any, tls: TLS, context: ssl.SSLContext, size: int) -> None:
    server = parts.Records(tls.context, True, None, None)
    client = parts.Records(context, False, "localhost", None)
    shake(client, server)
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
    for piece in cut(peer.seal(*messages, end=True), cuts):
        wanted = next(ask)
        found = ours.read(piece, wanted)
        while found:
            assert len(found) <= wanted
            got.append(found)
            wanted = next(ask)
            found = ours.read(b"", wanted)
        assert (found is None) is not ours.ended
    assert b"".join(got) == b"".join(messages)
    assert ours.ended
    assert not ours.broken


# --- what is here ------------------------------------------------------------------------------


def test_a_record_larger_than_what_is_asked_for(ends: Ends) -> None:
    ours, peer = ends
    assert ours.read(peer.seal(b"0123456789"), 3) == b"012"
    assert ours.holding
    assert ours.read(b"", 3) == b"345"
    assert ours.holding
    assert ours.read(b"", 1000) == b"6789"
    assert not ours.holding
    assert ours.read(b"", 1000) is None


def test_a_record_read_to_its_last_byte(ends: Ends) -> None:
    ours, peer = ends
    assert ours.read(peer.seal(b"0123456789"), 10) == b"0123456789"
    assert not ours.holding
    assert ours.read(b"", 10) is None


def test_new_records_behind_the_rest_of_one(ends: Ends) -> None:
    ours, peer = ends
    assert ours.read(peer.seal(b"0123456789"), 3) == b"012"
    assert ours.read(peer.seal(b"abc"), 4) == b"3456"
    assert ours.read(peer.seal(b"def"), 3) == b"789"
    assert read_up(ours) == b"abcdef"


def read_up(ours: Any, size: int = ALL) -> bytes:
    """All plain text that is here."""
    got = b""
    while part := ours.read(b"", size):
        got += part
    return got


MESSAGES = [b"one", b"two", bytes(RECORD), b"the last"]


def test_all_records_of_one_piece_come_at_once(ends: Ends) -> None:
    ours, peer = ends
    for _ in range(3):
        assert ours.read(peer.seal(*MESSAGES), ALL) == b"".join(MESSAGES)
        assert not ours.holding


@pytest.mark.parametrize("messages", [MESSAGES, MESSAGES[:2], MESSAGES * 3])
def test_the_rest_of_all_records_comes_at_once(ends: Ends, messages: list[bytes]) -> None:
    ours, peer = ends
    assert ours.read(peer.seal(*messages), 5) == b"onetw"
    assert ours.read(b"", ALL) == b"".join(messages)[5:]
    assert not ours.holding


@pytest.mark.parametrize("size", [1, 4, 5, 6, 20])
def test_a_record_that_has_begun(ends: Ends, size: int) -> None:
    ours, peer = ends
    sealed = peer.seal(b"a message")
    assert ours.read(sealed[:size], 100) is None
    assert ours.holding
    assert ours.read(b"", 100) is None
    assert ours.holding
    assert ours.read(sealed[size:-1], 100) is None
    assert ours.holding
    assert ours.read(sealed[-1:], 100) == b"a message"
    assert not ours.holding


def test_records_before_one_that_has_begun(ends: Ends) -> None:
    ours, peer = ends
    sealed = peer.seal(*MESSAGES)
    assert ours.read(sealed[:-1], ALL) == b"".join(MESSAGES[:-1])
    assert ours.holding
    assert ours.read(b"", ALL) is None
    assert ours.read(sealed[-1:] + peer.seal(b"more"), ALL) == b"the lastmore"
    assert not ours.holding


def test_reading_early(ends: Ends) -> None:
    ours, peer = ends
    assert ours.read_early() == 0
    sealed = peer.seal(b"first", b"second")
    assert ours.read_early(sealed[:-1]) == 5
    assert ours.holding
    assert ours.read_early(sealed[-1:]) == ours.read_early() == 11
    assert ours.read(b"", 3) == b"fir"
    assert ours.read_early() == 8
    assert ours.read(peer.seal(b"!"), ALL) == b"stsecond"
    assert ours.read(b"", ALL) == b"!"
    assert not ours.holding


def test_forgetting_what_was_read_early(ends: Ends) -> None:
    ours, peer = ends
    assert ours.read_early(peer.seal(b"nobody wants this")) == 17
    ours.forget_early()
    assert not ours.holding
    assert ours.read_early() == 0
    assert ours.read(b"", ALL) is None
    assert ours.read(peer.seal(b"this"), ALL) == b"this"


def test_nobody_is_inside_between_two_calls(ends: Ends) -> None:
    ours, peer = ends
    assert not ours.locked
    ours.read(peer.seal(b"x"), 1)
    ours.write(b"x")
    assert not ours.locked
    with pytest.raises(ssl.SSLError):
        ours.read(JUNK, 1)
    with pytest.raises(BrokenPipeError):
        ours.write(b"x")
    assert not ours.locked


def test_a_reader_beside_a_writer(ends: Ends) -> None:
    ours, peer = ends
    there, back = os.urandom(MEBIBYTE), os.urandom(MEBIBYTE)
    sealed = peer.seal(there)
    begin = threading.Barrier(2)

    def read() -> bytes:
        begin.wait()
        return b"".join(ours.read(piece, ALL) or b"" for piece in cut(sealed, cycle([5000])))

    def write() -> bytes:
        begin.wait()
        parts = (ours.write(back[at : at + 5000]) for at in range(0, MEBIBYTE, 5000))
        return b"".join(parts)

    reading, writing = Background(read), Background(write)
    assert reading.result() == there
    assert peer.open(writing.result()) == back


@pytest.mark.parametrize("together", [True, False])
def test_what_openssl_has_to_say_besides(
    parts: Any, certificates: Certificates, together: bool
) -> None:
    """A client that is asked for its certificate (RFC 8446, 4.6.2) answers while it reads."""
    context = certificates.client_context(certificates.client)
    context.post_handshake_auth = True
    asking = TLS(*certificates.server, client_ca=certificates.authority).context
    asking.post_handshake_auth = True  # and not in the handshake
    client = parts.Records(context, False, "localhost", None)
    server = Peer(asking, True)
    shake(client, server)
    assert client.read(server.outgoing() + server.seal(b"hello"), 100) == b"hello"
    assert server.open(client.outgoing() + client.write(b"hello")) == b"hello"
    assert not client.speaking
    server.tls.verify_client_post_handshake()
    assert server.agree()
    if together:
        assert client.read(server.seal(b"data"), 100) == b"data"
    else:
        assert client.read(server.outgoing(), 100) is None
    assert client.speaking
    assert not server.tls.getpeercert()
    sealed = client.write(b"afterwards")
    assert not client.speaking
    assert server.open(sealed) == b"afterwards"
    assert server.tls.getpeercert()


# --- what breaks TLS ---------------------------------------------------------------------------


@pytest.mark.parametrize("junk", [JUNK, b"junk without a record"])
@pytest.mark.parametrize("messages", [[b"good"], MESSAGES, [bytes(MEBIBYTE)]])
def test_what_breaks_tls_is_told_behind_the_data(
    ends: Ends, junk: bytes, messages: list[bytes]
) -> None:
    ours, peer = ends
    assert ours.read(peer.seal(*messages) + junk, ALL) == b"".join(messages)
    assert ours.broken
    assert ours.holding
    assert ours.speaking
    with pytest.raises(BrokenPipeError):
        ours.write(b"x")
    with pytest.raises(ssl.SSLError, match=r"(?i)record|version"):
        ours.read(b"", ALL)
    for more in (b"", peer.seal(b"more")):
        with pytest.raises(ssl.SSLError, match="the stream was broken before"):
            ours.read(more, ALL)
    assert ours.broken
    assert not ours.ended
    alert = ours.outgoing()
    assert not ours.speaking
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        peer.open(alert)


def test_what_breaks_tls_at_once(ends: Ends) -> None:
    ours, peer = ends
    with pytest.raises(ssl.SSLError, match=r"(?i)record"):
        ours.read(JUNK, ALL)
    assert ours.broken
    assert ours.speaking
    with pytest.raises(ssl.SSLError, match="the stream was broken before"):
        ours.read(b"", ALL)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        peer.open(ours.outgoing())


def test_what_breaks_tls_behind_data_that_was_read_early(ends: Ends) -> None:
    ours, peer = ends
    ours.raise_fault()
    assert ours.read_early(peer.seal(b"good", b"more") + JUNK) == 8
    assert ours.broken
    with pytest.raises(ssl.SSLError, match=r"(?i)record"):
        ours.raise_fault()
    assert ours.read(b"", 3) == b"goo"
    assert ours.read(b"", ALL) == b"dmore"
    with pytest.raises(ssl.SSLError, match=r"(?i)record"):
        ours.read(b"", ALL)
    assert ours.read_early() == 0


def test_no_goodbye_where_tls_is_broken(ends: Ends) -> None:
    ours, _peer = ends
    assert ours.read_early(JUNK) == 0
    ours.outgoing()
    ours.say_goodbye()
    assert not ours.said
    assert not ours.speaking


# --- the end -----------------------------------------------------------------------------------


def test_the_peer_says_goodbye(ends: Ends) -> None:
    ours, peer = ends
    assert not ours.ended
    assert ours.read(peer.seal(end=True), ALL) == b""
    assert ours.ended
    assert ours.holding
    assert ours.read(b"", ALL) == b""
    assert not ours.broken
    if peer.tls.version() == "TLSv1.3":  # which knows a half-closed connection
        assert ours.write(b"still here")


@pytest.mark.parametrize("size", [3, RECORD, ALL])
def test_the_end_comes_behind_the_data(ends: Ends, size: int) -> None:
    ours, peer = ends
    got = ours.read(peer.seal(*MESSAGES, end=True), size)
    assert got + read_up(ours, size) == b"".join(MESSAGES)
    assert ours.ended
    assert ours.read(b"", size) == b""


def test_the_end_that_was_read_early(ends: Ends) -> None:
    ours, peer = ends
    assert ours.read_early(peer.seal(b"data", end=True)) == 4
    assert ours.ended
    assert ours.read(b"", ALL) == b"data"
    assert ours.read(b"", ALL) == b""


def test_to_say_goodbye_ends_writing(ends: Ends) -> None:
    ours, peer = ends
    sealed = ours.write(b"the last")
    assert not ours.said
    ours.say_goodbye()
    assert ours.said
    assert ours.speaking
    with pytest.raises(BrokenPipeError):
        ours.write(b"more")
    with pytest.raises(BrokenPipeError):
        ours.write(bytes(MEBIBYTE))
    with pytest.raises(BrokenPipeError):
        ours.write(b"")
    goodbye = ours.outgoing()
    ours.say_goodbye()
    assert not ours.speaking, "it is said once"
    assert peer.open(sealed) == b"the last"
    peer.hold(goodbye)
    assert peer.tls.read(1) == b""


def test_reading_goes_on_behind_ones_own_goodbye(ends: Ends) -> None:
    ours, peer = ends
    ours.say_goodbye()
    assert ours.read(peer.seal(b"data", b"more"), ALL) == b"datamore"
    assert not ours.ended
    peer.hold(ours.outgoing())
    assert ours.read(peer.seal(end=True), ALL) == b""
    assert ours.ended


@pytest.mark.parametrize("size", [1, 4, 5])
def test_to_say_goodbye_loses_nothing(ends: Ends, size: int) -> None:
    """Of what has come, but was not read; a record that has begun is completed after it."""
    ours, peer = ends
    sealed = peer.seal(b"0123456789", b"abc", b"begun")
    assert ours.read(sealed[:-3], size) == b"0123456789"[:size]
    ours.say_goodbye()
    assert ours.said
    assert read_up(ours) == b"0123456789abc"[size:]
    found = ours.read(sealed[-3:], ALL)
    assert found
    assert found + read_up(ours) == b"begun"
    peer.hold(ours.outgoing())
    assert peer.tls.read(1) == b""


@pytest.mark.parametrize("clear", [b"in clear", JUNK, JUNK + b"and more", b"\x17"])
@pytest.mark.parametrize("together", [True, False])
def test_what_came_in_clear_behind_the_end(ends: Ends, clear: bytes, together: bool) -> None:
    ours, peer = ends
    sealed = peer.seal(b"data", end=True)
    if together:
        assert ours.read(sealed + clear, ALL) == b"data"
        assert ours.read(b"", ALL) == b""
    else:
        assert ours.read(sealed, ALL) == b"data"
        assert ours.read(b"", ALL) == b""
        assert ours.read(clear, ALL) == b""
    assert ours.surplus() == clear
    assert ours.surplus() == b""


def test_nothing_came_behind_the_end(ends: Ends) -> None:
    ours, peer = ends
    assert ours.read(peer.seal(end=True), ALL) == b""
    assert ours.surplus() == b""


# --- both implementations agree ----------------------------------------------------------------

SMALL, LARGE = st.integers(1, 60), st.integers(1, 3 * RECORD)
SIZE = st.one_of(SMALL, LARGE)
STEPS = st.one_of(
    st.tuples(st.just("say"), SIZE),
    st.tuples(st.just("say"), SIZE),
    st.tuples(st.just("come"), SIZE, SIZE),
    st.tuples(st.just("come"), st.just(ALL), SIZE),
    st.tuples(st.just("come"), st.just(ALL), st.just(ALL)),
    st.tuples(st.just("read"), SIZE),
    st.tuples(st.just("early"), SIZE),
    st.tuples(st.just("write"), st.one_of(st.just(0), SIZE)),
    st.sampled_from([("forget",), ("outgoing",), ("goodbye",), ("fault",), ("end",), ("junk",)]),
)
FLAGS = ("holding", "speaking", "ended", "said", "broken", "locked")


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
            told = getattr(self, name)(*arguments)
        except ssl.SSLError as error:
            told = type(error), getattr(error, "reason", None), error.args[0]
        except OSError as error:
            told = type(error), error.args
        return step, told, [(flag, getattr(self._ours, flag)) for flag in FLAGS]

    def say(self, size: int) -> None:
        if not self._over:
            self._wire += self._peer.seal(bytes(at % 251 for at in range(size)))

    def end(self) -> None:
        if not self._over:
            self._wire += self._peer.seal(end=True)
            self._over = True

    def junk(self) -> None:
        self._wire += JUNK
        self._over = True

    def come(self, size: int, asked: int) -> bytes | None:
        return self._ours.read(self._take(size), asked)  # type: ignore[no-any-return]

    def read(self, asked: int) -> bytes | None:
        return self._ours.read(b"", asked)  # type: ignore[no-any-return]

    def early(self, size: int) -> int:
        return self._ours.read_early(self._take(size))  # type: ignore[no-any-return]

    def write(self, size: int) -> int:
        return len(self._ours.write(bytes(size)))

    def forget(self) -> None:
        self._ours.forget_early()

    def outgoing(self) -> int:
        return len(self._ours.outgoing())

    def goodbye(self) -> None:
        self._ours.say_goodbye()

    def fault(self) -> None:
        self._ours.raise_fault()

    def surplus(self) -> bytes:
        found: bytes = self._ours.surplus()
        return found if self._ours.ended else b""

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
    for step in (*script, ("come", ALL, ALL), ("read", ALL), ("surplus",)):
        expected, got = (actor.do(step) for actor in actors)
        assert got == expected
