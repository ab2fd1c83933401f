"""``sockets.tlssocket``: a socket whose bytes travel encrypted, met by the standard library's."""

from __future__ import annotations

import contextlib
import io
import os
import select
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT, Background, read_all
from tests.sockets.tlspeers import INNERS, peers, plain_peers

from everserve.sockets.tls import TLS, TLSSocket

MEBIBYTE = 1 << 20
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]

Pair = tuple[TLSSocket, ssl.SSLSocket]


@pytest.fixture(scope="module")
def tls(certificates: Certificates) -> TLS:
    return TLS(*certificates.server)


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def context(certificates: Certificates, request: pytest.FixtureRequest) -> ssl.SSLContext:
    context = certificates.client_context()
    context.maximum_version = request.param
    return context


@pytest.fixture(params=sorted(INNERS))
def pair(tls: TLS, context: ssl.SSLContext, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Both versions of TLS, on all that it may stand on."""
    with peers(tls, context, inner=request.param) as pair:
        yield pair


@pytest.fixture
def one(tls: TLS, certificates: Certificates) -> Iterator[Pair]:
    """TLS 1.3 on a plain socket."""
    with peers(tls, certificates.client_context()) as pair:
        yield pair


@pytest.fixture(params=sorted(INNERS))
def duplex(
    tls: TLS, context: ssl.SSLContext, request: pytest.FixtureRequest
) -> Iterator[tuple[TLSSocket, TLSSocket]]:
    """Both ends are ours: of Python 3.11, `ssl.SSLSocket` fails with a reader beside a writer."""
    with plain_peers() as (plain, raw):
        server = tls.wrap(INNERS[request.param](plain))
        client = TLSSocket(raw, context, server_side=False, server_hostname="localhost")
        shaking = Background(server.do_handshake)
        client.do_handshake()
        shaking.result()
        yield server, client
        server.inner.close()


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes."""
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(size - len(parts))
        assert part, f"the stream ended after {len(parts)} of {size} bytes"
        parts += part
    return bytes(parts)


def fill(sock: socket.socket) -> None:
    """Send clear bytes until the kernel takes no more."""
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(65_536))


# --- what it is --------------------------------------------------------------------------------


def test_it_is_a_socket_of_the_inner_descriptor(pair: Pair) -> None:
    server, _client = pair
    inner = server.inner
    assert isinstance(server, socket.socket)
    assert server.fileno() == inner.fileno()
    assert (server.family, server.type, server.proto) == (inner.family, inner.type, inner.proto)
    assert server.getsockname() == inner.getsockname()
    assert server.getpeername() == inner.getpeername()
    assert server.get_inheritable() == inner.get_inheritable() is False
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    assert inner.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
    assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
    server.set_inheritable(True)
    assert inner.get_inheritable()
    assert "TLSSocket" in repr(server)


def test_time_is_the_inner_sockets(one: Pair) -> None:
    server, _client = one
    server.settimeout(3.5)
    assert server.inner.gettimeout() == server.gettimeout() == server.timeout == 3.5
    assert server.getblocking()
    server.setblocking(False)
    assert server.inner.gettimeout() == 0.0
    assert not server.getblocking()


def test_what_was_agreed_on(pair: Pair, context: ssl.SSLContext) -> None:
    server, client = pair
    assert server.version() == client.version()
    assert (
        server.version()
        == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[context.maximum_version.name]
    )
    assert server.cipher() == client.cipher()
    assert server.shared_ciphers()
    assert server.compression() is None
    assert server.selected_alpn_protocol() is None
    assert server.session_reused is False
    assert server.session is not None
    assert isinstance(server.context, ssl.SSLContext)
    assert server.server_side
    assert server.server_hostname == "localhost"
    assert server.get_channel_binding() == client.get_channel_binding()
    assert server.getpeercert() is None


def test_no_method_of_socket_passes_it_by() -> None:
    built_on_these = {"makefile", "close", "_decref_socketios"}
    layers = [layer for layer in TLSSocket.__mro__ if layer.__module__.startswith("everserve")]
    own = {name for layer in layers for name in vars(layer)}
    missing = {name for name in dir(socket.socket) if not name.startswith("_")} - own
    assert missing - built_on_these - {"ioctl", "share"} == set()


def test_what_would_pass_it_by_is_refused_as_by_ssl(one: Pair) -> None:
    server, client = one
    for sock in (server, client):
        with pytest.raises(ValueError, match="sendto not allowed"):
            sock.sendto(b"x", ("127.0.0.1", 1))
        with pytest.raises(ValueError, match="recvfrom not allowed"):
            sock.recvfrom(1)
        with pytest.raises(ValueError, match="recvfrom_into not allowed"):
            sock.recvfrom_into(bytearray(1))
        for call in (
            lambda sock=sock: sock.recvmsg(1),
            lambda sock=sock: sock.recvmsg_into([bytearray(1)]),
            lambda sock=sock: sock.sendmsg([b"x"]),
            sock.dup,
        ):
            with pytest.raises(NotImplementedError):
                call()
        for call in (
            lambda sock=sock: sock.recv(1, socket.MSG_PEEK),
            lambda sock=sock: sock.recv_into(bytearray(1), 1, socket.MSG_PEEK),
            lambda sock=sock: sock.send(b"x", socket.MSG_OOB),
            lambda sock=sock: sock.sendall(b"x", socket.MSG_OOB),
        ):
            with pytest.raises(ValueError, match="non-zero flags"):
                call()
    with pytest.raises(NotImplementedError):
        server.sendmsg_afalg([b"x"], op=1)


def test_what_makes_no_sense_on_a_connection_is_the_kernels_answer(one: Pair) -> None:
    server, _client = one
    with pytest.raises(OSError, match="Invalid argument"):
        server.bind(("127.0.0.1", 0))
    with pytest.raises(OSError, match="Invalid argument"):
        server.listen()
    server.settimeout(None)
    with pytest.raises(OSError, match="Invalid argument"):
        server.accept()
    with pytest.raises(OSError, match="already connected"):
        server.connect(server.getpeername())
    assert server.connect_ex(server.getpeername()) != 0


# --- data --------------------------------------------------------------------------------------


def test_all_ways_of_sending_and_receiving(pair: Pair) -> None:
    server, client = pair
    server.sendall(b"one")
    assert server.send(memoryview(b"two")) == 3
    server.sendall(bytearray(b"three"))
    server.sendall(memoryview(b"abcdefgh").cast("I"))
    assert receive(client, 19) == b"onetwothreeabcdefgh"
    client.sendall(b"abcdefghijklmnop")
    buffer = bytearray(4)
    assert server.recv(1) == b"a"
    assert server.recv_into(buffer) == 4
    assert buffer == b"bcde"
    assert server.recv_into(buffer, 2) == 2
    assert buffer == b"fgde"
    assert server.recv_into(memoryview(buffer)[2:], 0) == 2
    assert buffer == b"fghi"
    assert server.recv() == b"jklmnop"


def test_sizes_of_nothing_and_less(pair: Pair) -> None:
    server, client = pair
    server.sendall(b"")
    assert server.send(b"") == 0
    assert server.recv(0) == b""
    assert server.recv_into(bytearray()) == 0
    with pytest.raises(ValueError, match="negative buffersize"):
        server.recv(-1)
    with pytest.raises(ValueError, match="negative buffersize"):
        server.recv_into(bytearray(1), -1)
    server.sendall(b"x")
    assert client.recv(10) == b"x"


SIZES = [1, 16_383, 16_384, 16_385, 65_537, 3 * MEBIBYTE]


@pytest.mark.parametrize("size", SIZES)
def test_much_one_way_and_then_the_other(pair: Pair, size: int) -> None:
    server, client = pair
    data = os.urandom(size)
    sending = Background(client.sendall, data)
    assert receive(server, size) == data
    sending.result()
    sending = Background(server.sendall, data)
    assert receive(client, size) == data
    sending.result()


@pytest.mark.parametrize("size", SIZES)
def test_much_both_ways_at_once(duplex: tuple[TLSSocket, TLSSocket], size: int) -> None:
    server, client = duplex
    there, back = os.urandom(size), os.urandom(size)
    sending = [Background(client.sendall, there), Background(server.sendall, back)]
    receiving = Background(receive, client, size)
    assert receive(server, size) == there
    assert receiving.result() == back
    for task in sending:
        task.result()


def test_a_reader_and_writers_in_threads(duplex: tuple[TLSSocket, TLSSocket]) -> None:
    server, client = duplex
    lines = [b"%d" % writer * 999 + b"\n" for writer in range(4)]

    def write(line: bytes) -> None:
        for _ in range(50):
            server.sendall(line)

    writers = [Background(write, line) for line in lines]
    echo = Background(receive, server, MEBIBYTE)
    client_writes = Background(client.sendall, bytes(MEBIBYTE))
    with client.makefile("rb") as stream:
        got = [stream.readline() for _ in range(200)]
    assert sorted(got) == sorted(lines * 50)
    for task in (*writers, client_writes):
        task.result()
    assert echo.result() == bytes(MEBIBYTE)


def test_many_small_messages_in_one_segment(pair: Pair) -> None:
    server, client = pair
    for number in range(100):
        client.sendall(b"%03d" % number)
    assert [receive(server, 3) for _ in range(100)] == [b"%03d" % number for number in range(100)]


def test_sendfile(pair: Pair) -> None:
    server, client = pair
    data = os.urandom(200_000)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        sending = Background(server.sendfile, file)
        assert receive(client, len(data)) == data
        assert sending.result() == len(data)
        assert file.tell() == len(data)
        assert server.sendfile(file, 100, 50) == 50
        assert file.tell() == 150
        assert receive(client, 50) == data[100:150]
        with pytest.raises(ValueError, match="count must be"):
            server.sendfile(file, 0, -1)
        server.setblocking(False)
        with pytest.raises(ValueError, match="non-blocking"):
            server.sendfile(file)
    assert server.sendfile.__doc__


def test_pending_tells_of_all_that_select_cannot_see(pair: Pair) -> None:
    server, client = pair
    assert server.pending() == 0
    client.sendall(b"first")
    client.sendall(b"second")
    assert select.select([server], [], [], LIMIT)[0]
    assert receive(server, 1) == b"f"
    got = b"f"
    while len(got) < 11:
        while server.pending():
            got += server.recv(server.pending())
        if len(got) < 11:
            assert select.select([server], [], [], LIMIT)[0]
            got += server.recv(1)
    assert got == b"firstsecond"
    assert server.pending() == 0


def test_ciphertext_that_was_read_before(tls: TLS, context: ssl.SSLContext) -> None:
    with plain_peers() as (plain, raw):
        shaking = Background(context.wrap_socket, raw, server_hostname="localhost")
        initial = plain.recv(100)
        server = tls.wrap(plain, initial=initial)
        server.do_handshake()
        with shaking.result() as client:
            client.sendall(b"hello")
            assert server.recv(100) == b"hello"


def test_the_first_use_shakes_hands(tls: TLS, context: ssl.SSLContext) -> None:
    for use in (lambda server: server.recv(5), lambda server: server.sendall(b"hello")):
        with plain_peers() as (plain, raw):
            shaking = Background(context.wrap_socket, raw, server_hostname="localhost")
            server = tls.wrap(plain)
            using = Background(use, server)
            with shaking.result() as client:
                client.sendall(b"hello")
                using.result()
                assert server.version()
                server.do_handshake()  # nothing more


def test_both_ends_may_be_ours(tls: TLS, context: ssl.SSLContext) -> None:
    with plain_peers() as (plain, raw):
        server = tls.wrap(plain)
        client = TLSSocket(raw, context, server_side=False, server_hostname="localhost")
        shaking = Background(server.do_handshake)
        client.do_handshake()
        shaking.result()
        assert client.server_hostname == "localhost"
        assert not client.server_side
        assert client.getpeercert()["subjectAltName"]
        client.sendall(b"ping")
        assert server.recv(100) == b"ping"
        server.sendall(b"pong")
        assert client.recv(100) == b"pong"
        closing = Background(client.close_notify, LIMIT, wait=True)
        assert server.recv(1) == b""
        assert server.close_notify()
        assert closing.result()


def test_a_client_of_ours_checks_the_name(tls: TLS, context: ssl.SSLContext) -> None:
    with plain_peers() as (plain, raw):
        shaking = Background(tls.wrap(plain).do_handshake)
        client = TLSSocket(raw, context, server_side=False, server_hostname="other.example")
        with pytest.raises(ssl.SSLCertVerificationError):
            client.do_handshake()
        with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
            shaking.result()


# --- makefile ----------------------------------------------------------------------------------


def test_makefile(pair: Pair) -> None:
    server, client = pair
    with server.makefile("rwb") as stream, client.makefile("rwb", buffering=0) as other:
        assert isinstance(stream, io.BufferedRWPair)
        other.write(b"a line\nand more")
        assert stream.readline() == b"a line\n"
        assert stream.read1(100) == b"and more"
        stream.write(b"answer\n")
        stream.flush()
        assert other.readline() == b"answer\n"
    with server.makefile("r", encoding="utf-8") as text:
        client.sendall("zeile ü\n".encode())
        assert text.readline() == "zeile ü\n"


def test_the_socket_lives_until_its_files_are_closed(pair: Pair) -> None:
    server, client = pair
    stream = server.makefile("rb")
    server.close()
    client.sendall(b"late\n")
    assert stream.readline() == b"late\n"
    assert server.fileno() >= 0
    stream.close()
    assert server.fileno() == server.inner.fileno() == -1


# --- without blocking, and with a limit of time ---------------------------------------------------


def test_non_blocking_as_ssl_does_it(tls: TLS, context: ssl.SSLContext) -> None:
    with plain_peers() as (plain, raw):
        server = tls.wrap(plain)
        server.setblocking(False)
        with pytest.raises(ssl.SSLWantReadError):
            server.do_handshake()
        shaking = Background(context.wrap_socket, raw, server_hostname="localhost")
        shake_step_by_step(server)
        with shaking.result() as client:
            with pytest.raises(ssl.SSLWantReadError):
                server.recv(10)
            with pytest.raises(ssl.SSLWantReadError):
                server.recv_into(bytearray(10))
            data = os.urandom(64 * MEBIBYTE)
            sent = send_until_full(server, data)
            reading = Background(receive, client, len(data))
            send_step_by_step(server, data[sent:])
            assert reading.result() == data


def shake_step_by_step(server: TLSSocket) -> None:
    while True:
        try:
            server.do_handshake()
            return
        except ssl.SSLWantReadError:
            assert select.select([server], [], [], LIMIT)[0]
        except ssl.SSLWantWriteError:
            assert select.select([], [server], [], LIMIT)[1]


def send_step_by_step(server: TLSSocket, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[server.send(left) :]
        except ssl.SSLWantWriteError:
            assert select.select([], [server], [], LIMIT)[1]


def send_until_full(server: TLSSocket, data: bytes) -> int:
    """Send until the kernel takes no more; how much it took."""
    left = memoryview(data)
    with contextlib.suppress(ssl.SSLWantWriteError):
        while left:
            left = left[server.send(left) :]
    assert left
    return len(data) - len(left)


def send_until(server: TLSSocket, end: type[OSError]) -> int:
    """Send 10,000 bytes again and again, until `end` is raised; how many went before."""
    sent = 0
    try:
        while True:
            sent += server.send(bytes(10_000))
    except end:
        return sent


def test_a_repeated_send_needs_the_same_data(one: Pair) -> None:
    server, client = one
    server.setblocking(False)
    sent = send_until(server, ssl.SSLWantWriteError)
    reading = Background(receive, client, sent + 10_000)
    server.settimeout(LIMIT)
    with pytest.raises(ssl.SSLError, match="bad write retry"):
        server.send(b"short")
    assert server.send(bytes(10_000)) == 10_000
    assert reading.result() == bytes(sent + 10_000)


def test_block_waits_on_a_non_blocking_socket(tls: TLS, context: ssl.SSLContext) -> None:
    with plain_peers() as (plain, raw):
        plain.setblocking(False)
        server = tls.wrap(plain)
        shaking = Background(context.wrap_socket, raw, server_hostname="localhost")
        server.do_handshake(block=True)
        assert server.gettimeout() == 0.0
        shaking.result().close()


def test_a_send_that_timed_out_can_go_on(one: Pair) -> None:
    server, client = one
    server.settimeout(0.01)
    sent = send_until(server, TimeoutError)
    reading = Background(read_all, client)
    server.settimeout(LIMIT)
    assert server.send(bytes(10_000)) == 10_000
    server.shutdown(socket.SHUT_WR)
    assert reading.result() == bytes(sent + 10_000)


def test_a_timed_out_sendall_tears_no_record(one: Pair) -> None:
    server, client = one
    server.settimeout(0.01)
    with pytest.raises(TimeoutError):
        server.sendall(bytes(64 * MEBIBYTE))
    reading = Background(read_all, client)
    server.settimeout(LIMIT)
    server.sendall(b"the end")
    server.shutdown(socket.SHUT_WR)
    got = reading.result()
    assert len(got) < 64 * MEBIBYTE
    assert got.strip(b"\0") == b"the end"


def test_recv_times_out(pair: Pair) -> None:
    server, client = pair
    server.settimeout(0.01)
    with pytest.raises(TimeoutError):
        server.recv(1)
    client.sendall(b"x")
    server.settimeout(LIMIT)
    assert server.recv(1) == b"x"


# --- the end -----------------------------------------------------------------------------------


def test_the_peer_says_goodbye(pair: Pair) -> None:
    server, client = pair
    saying = Background(client.unwrap)
    assert server.recv(10) == b""
    assert server.recv_into(bytearray(10)) == 0
    assert not server.truncated
    server.close_notify()
    saying.result()
    assert server.recv(10) == b""


def test_a_half_close_leaves_the_other_half(pair: Pair) -> None:
    server, client = pair
    server.sendall(b"that was all")
    server.shutdown(socket.SHUT_WR)
    assert read_all(client) == b"that was all"
    with pytest.raises(BrokenPipeError):
        server.sendall(b"more")
    with pytest.raises(BrokenPipeError):
        server.send(b"more")
    data = os.urandom(100_000)
    writing = Background(client.sendall, data)
    assert receive(server, len(data)) == data
    writing.result()
    client.unwrap()
    assert server.recv(1) == b""
    assert not server.truncated
    assert server.recv(1) == b""


def test_a_half_close_keeps_what_has_come(pair: Pair) -> None:
    """What was received, but not yet read, when the half is closed."""
    server, client = pair
    for _ in range(3):
        client.sendall(b"0123456789")
    assert receive(server, 1) == b"0"
    server.shutdown(socket.SHUT_WR)
    buffer = bytearray(2)
    assert server.recv_into(buffer) == 2
    assert buffer == b"12"
    assert receive(server, 27) == b"3456789" + b"0123456789" * 2
    client.unwrap()
    assert server.recv(1) == b""


def test_close_says_goodbye(pair: Pair) -> None:
    server, client = pair
    client.suppress_ragged_eofs = False
    server.sendall(b"bye")
    with server:
        pass
    assert read_all(client) == b"bye"
    assert server.inner.fileno() == -1
    for use in (lambda: server.recv(1), lambda: server.send(b"x"), lambda: server.sendall(b"x")):
        with pytest.raises(OSError, match="Bad file descriptor"):
            use()
    server.close()


def test_closing_the_inner_is_enough(pair: Pair) -> None:
    server, client = pair
    client.suppress_ragged_eofs = False
    server.inner.close()
    with pytest.raises(ssl.SSLEOFError):
        client.recv(1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        server.recv(1)
    assert not server.close_notify(LIMIT)
    server.close()


@pytest.mark.parametrize("suppress", [True, False])
def test_a_truncated_stream_is_told(tls: TLS, context: ssl.SSLContext, suppress: bool) -> None:
    with peers(tls, context, suppress_ragged_eofs=suppress) as (server, client):
        client.sendall(b"half a mess")
        client.shutdown(socket.SHUT_RDWR)  # of the plain socket below: no close_notify
        assert receive(server, 11) == b"half a mess"
        assert not server.truncated
        for _ in range(2):
            if suppress:
                assert server.recv(10) == b""
                assert server.recv_into(bytearray(10)) == 0
            else:
                with pytest.raises(ssl.SSLEOFError):
                    server.recv(10)
            assert server.truncated
        assert not server.close_notify(LIMIT, wait=True)


def test_a_record_cut_in_the_middle_is_truncation(one: Pair) -> None:
    server, client = one
    raw = socket.socket(fileno=client.detach())
    with raw:
        raw.sendall(b"\x17\x03\x03\x40\x00half")
        raw.shutdown(socket.SHUT_WR)
        assert server.recv(10) == b""
        assert server.truncated


def test_close_notify_waits_for_the_peers(pair: Pair) -> None:
    server, client = pair
    closing = Background(server.close_notify, LIMIT, wait=True)
    assert client.recv(1) == b""
    client.sendall(bytes(100_000))  # dropped
    client.unwrap()
    assert closing.result()
    assert server.close_notify(LIMIT, wait=True)
    assert server.gettimeout() == LIMIT


def test_close_notify_has_a_bound_when_nobody_answers(pair: Pair) -> None:
    server, client = pair
    assert not server.close_notify(0.01, wait=True)
    assert client.recv(1) == b""
    assert server.gettimeout() == LIMIT


def test_close_notify_has_a_bound_when_nobody_reads(pair: Pair) -> None:
    server, _client = pair
    fill(server.inner)
    server.settimeout(None)
    assert not server.close_notify()
    assert not server.close_notify(0.01, wait=True)
    assert server.gettimeout() is None


def test_close_notify_has_a_bound_while_another_thread_sends(one: Pair) -> None:
    server, _client = one
    server.settimeout(None)
    sending = Background(server.sendall, bytes(64 * MEBIBYTE))
    with pytest.raises(AssertionError, match="still running"):
        sending.result(0.05)
    assert not server.close_notify(0.01)
    server.close_notify()
    server.inner.shutdown(socket.SHUT_RDWR)
    with pytest.raises(OSError, match=r"pipe|reset"):
        sending.result()


def test_close_notify_has_a_bound_when_the_peer_talks_on(one: Pair) -> None:
    server, client = one
    done = threading.Event()

    def flood() -> None:
        with contextlib.suppress(OSError):
            while not done.is_set():
                client.sendall(bytes(65_536))

    flooding = Background(flood)
    assert not server.close_notify(0.05, wait=True)
    done.set()
    server.inner.close()
    flooding.result()


def test_shutdown_has_a_bound_when_nobody_reads(one: Pair) -> None:
    server, _client = one
    fill(server.inner)
    server.settimeout(0.01)
    server.shutdown(socket.SHUT_WR)
    server.shutdown(socket.SHUT_RDWR)


def test_close_notify_before_the_handshake_says_nothing(tls: TLS) -> None:
    with plain_peers() as (plain, raw):
        server = tls.wrap(plain)
        assert not server.close_notify(LIMIT, wait=True)
        server.close()
        assert raw.recv(10) == b""


def test_unwrap_goes_on_in_clear(pair: Pair) -> None:
    server, client = pair
    ending = Background(client.unwrap)
    assert server.recv(1) == b""
    assert server.unwrap() is server.inner
    plain = ending.result()
    assert server.surplus() == b""
    server.inner.sendall(b"clear")
    assert plain.recv(10) == b"clear"
    with pytest.raises(ValueError, match="No SSL wrapper"):
        server.unwrap()


def test_clear_bytes_behind_the_goodbye_are_surplus(tls: TLS, context: ssl.SSLContext) -> None:
    with plain_peers() as (plain, raw):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        other = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        server = tls.wrap(plain)
        shaking = Background(server.do_handshake)
        while True:
            try:
                other.do_handshake()
                break
            except ssl.SSLWantReadError:
                raw.sendall(outgoing.read())
                incoming.write(raw.recv(65_536))
        raw.sendall(outgoing.read())
        shaking.result()
        with pytest.raises(ssl.SSLWantReadError):
            other.unwrap()
        raw.sendall(outgoing.read() + b"in clear")
        assert server.recv(1) == b""
        server.unwrap()
        rest = server.surplus()
        while len(rest) < 8:
            rest += server.inner.recv(8)
        assert rest == b"in clear"
        assert server.surplus() == b""


def test_unwrap_is_not_for_a_peer_that_talks_on(one: Pair) -> None:
    server, client = one
    client.sendall(b"more")
    with pytest.raises(ssl.SSLError, match="application data after close notify"):
        server.unwrap()
    assert server.recv(10) == b"more"


def test_unwrap_tells_of_a_peer_that_has_gone(one: Pair) -> None:
    server, client = one
    client.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ssl.SSLEOFError):
        server.unwrap()
    assert server.truncated


def test_detach_says_nothing(one: Pair) -> None:
    server, client = one
    client.suppress_ragged_eofs = False
    fd = server.detach()
    assert server.fileno() == server.inner.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        server.recv(1)
    server.close()
    os.close(fd)
    with pytest.raises(ssl.SSLEOFError):
        client.recv(1)


def test_a_child_that_inherits_it_says_nothing(one: Pair) -> None:
    server, client = one
    pid = os.fork()
    if pid == 0:
        server.close()
        os._exit(0)
    os.waitpid(pid, 0)
    server.sendall(b"still here")
    assert client.recv(100) == b"still here"


def test_it_needs_no_close_of_its_own(tls: TLS, context: ssl.SSLContext) -> None:
    with plain_peers() as (plain, raw):
        tls.wrap(plain)
        Background(raw.close).result()
        assert plain.fileno() >= 0


def test_what_is_in_the_way_of_its_turn(tls: TLS, certificates: Certificates) -> None:
    """A lock of the caller's keeps writers apart."""
    turn: Any = threading.Lock()
    with peers(tls, certificates.client_context(), turn=turn) as (server, client):
        turn.acquire()
        sending = Background(server.sendall, b"x")
        with pytest.raises(AssertionError, match="still running"):
            sending.result(0.05)
        turn.release()
        sending.result()
        assert client.recv(1) == b"x"
