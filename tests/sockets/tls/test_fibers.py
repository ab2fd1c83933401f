"""TLS in fibers, by each engine: it parks the fiber, does not block the others, and tears no record."""

from __future__ import annotations

import os
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT, reset
from tests.sockets.tls.peers import connection, receive

from everserve.fibers.exits import FiberExit
from everserve.fibers.spawning import spawn
from everserve.fibers.sync import Event, sleep
from everserve.sockets.tls import TLS, TLSSocket
from everserve.sockets.tls.records import RECORD

Ends = tuple[TLSSocket, TLSSocket]
Run = Callable[..., list[Any]]

MEBIBYTE = 1 << 20
MUCH = 64 * MEBIBYTE
"""More than the kernel takes, of a peer that does not read."""


@pytest.fixture
def ends(parts: Any, tls: TLS, certificates: Certificates) -> Iterator[Ends]:
    """A server and a client on `FiberSocket`s, before their handshake."""
    server, client = (parts.FiberSocket.adopt(sock) for sock in connection())
    context = certificates.client_context()
    yield (
        wrap(parts, tls, server),
        parts.FiberTLSSocket(
            client,
            context,
            server_side=False,
            server_hostname="localhost",
            write_lock=parts.Semaphore(1),
            records=parts.Records,
        ),
    )
    server.close()
    client.close()


def wrap(parts: Any, tls: TLS, inner: socket.socket) -> TLSSocket:
    return tls.wrap(
        inner,
        write_lock=parts.Semaphore(1),
        records=parts.Records,
        kind=parts.FiberTLSSocket,
    )


@pytest.fixture
def run(parts: Any) -> Run:
    """Run functions as fibers of one thread, to their ends; their results."""

    def runner(*functions: Callable[[], Any]) -> list[Any]:
        errors: list[BaseException] = []
        hub = parts.Hub(on_error=lambda _fiber, error: errors.append(error))
        results: dict[int, Any] = {}
        fibers = [
            hub.spawn(lambda at=at, function=function: results.__setitem__(at, function()))
            for at, function in enumerate(functions)
        ]
        try:
            assert all(fiber.join(LIMIT) for fiber in fibers) or errors
        finally:
            hub.close()
        if errors:
            raise errors[0]
        return [results[at] for at in range(len(functions))]

    return runner


@pytest.fixture
def connected(ends: Ends, run: Run) -> Ends:
    """After the handshake; the tickets are read with the first data."""
    run(ends[0].do_handshake, ends[1].do_handshake)
    return ends


def narrow(sock: TLSSocket) -> None:
    """Let the kernel hold little, so that sends are partial, and wait."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


def read_to_end(sock: TLSSocket) -> bytes:
    """All until the peer's close_notify, which has to come."""
    parts = []
    while part := sock.recv(1 << 16):
        parts.append(part)
    assert not sock.truncated
    return b"".join(parts)


def test_both_ends_in_one_thread(ends: Ends, run: Run) -> None:
    server, client = ends

    def serve() -> bytes:
        server.do_handshake()
        request = server.recv(100)
        server.sendall(request.upper())
        assert server.close_notify(LIMIT, wait=True)
        return request

    def ask() -> bytes:
        client.do_handshake()
        client.sendall(b"hello")
        answer = client.recv(100)
        assert client.recv(1) == b""
        client.close_notify()
        return answer

    assert run(serve, ask) == [b"hello", b"HELLO"]


def test_an_echo_of_small_messages(connected: Ends, run: Run) -> None:
    server, client = connected
    messages = [os.urandom(size) for size in (1, 2, 100, 1000, 8000, 16_384) * 10]

    def serve() -> None:
        while data := server.recv(1 << 16):
            server.sendall(data)

    def ask() -> list[bytes]:
        answers = []
        for message in messages:
            client.sendall(message)
            answers.append(receive(client, len(message)))
        client.shutdown(socket.SHUT_WR)
        return answers

    assert run(serve, ask)[1] == messages


def test_a_reader_and_writers_of_one_connection(ends: Ends, run: Run) -> None:
    """What fills the kernel's buffers many times over, both ways at once."""
    server, client = ends
    size, ready = 8 << 20, Event()
    data = os.urandom(size)

    def send(sock: TLSSocket) -> None:
        ready.wait()
        sock.sendall(data)

    def serve() -> bytes:
        server.do_handshake()
        return receive(server, size)

    def ask() -> bytes:
        client.do_handshake()
        ready.set()
        return receive(client, 3 * size)

    results = run(serve, ask, lambda: send(client), *[lambda: send(server)] * 3)
    assert results[0] == data
    assert len(results[1]) == 3 * size


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_a_mebibyte_each_way_at_once(connected: Ends, run: Run, form: Callable[..., Any]) -> None:
    server, client = connected
    there, back = os.urandom(MEBIBYTE), os.urandom(MEBIBYTE)
    results = run(
        lambda: client.sendall(form(there)),
        lambda: server.sendall(form(back)),
        lambda: receive(client, MEBIBYTE),
        lambda: receive(server, MEBIBYTE),
    )
    assert results[2:] == [back, there]


@pytest.mark.parametrize("piece", [5000, 60_000])
def test_a_peer_that_reads_slowly(connected: Ends, run: Run, piece: int) -> None:
    server, client = connected
    narrow(server)
    messages = [os.urandom(size) for size in (MEBIBYTE, 1, 20_000, 16_384, 5)]
    left: list[bytes] = []

    def send() -> None:
        for message in messages:
            server.sendall(message)
            left.append(message)

    def read() -> bytes:
        assert not left, "the first message found room at once: nothing was waited for"
        got = b""
        while len(got) < sum(map(len, messages)):
            got += client.recv(piece)
            sleep()
        return got

    assert run(send, read)[1] == b"".join(messages)


def test_two_writers_at_once(connected: Ends, run: Run) -> None:
    """Each message arrives whole, and each writer's in their order."""
    server, client = connected
    narrow(server)
    sizes = [5, 20_000, 300, 500_000, 16_384, 1, 98_305]

    def write(writer: int) -> None:
        for number, size in enumerate(sizes):
            head = bytes([writer, number]) + size.to_bytes(4)
            server.sendall(head + bytes([writer]) * size)

    def read() -> list[tuple[int, int]]:
        got = []
        for _message in range(2 * len(sizes)):
            writer, number, *size = receive(client, 6)
            body = receive(client, int.from_bytes(bytes(size)))
            assert body == bytes([writer]) * sizes[number]
            got.append((writer, number))
        return got

    got = run(lambda: write(1), lambda: write(2), read)[2]
    for writer in (1, 2):
        assert [number for by, number in got if by == writer] == list(range(len(sizes)))
    assert got != sorted(got), "they did not alternate"


def test_a_reader_that_is_parked_while_another_writes(connected: Ends, run: Run) -> None:
    server, client = connected
    data, order = os.urandom(MEBIBYTE), []

    def read() -> bytes:
        order.append("reads")
        found = server.recv(100)
        order.append("has read")
        return found

    def write() -> None:
        assert order == ["reads"]
        server.sendall(data)
        order.append("has written")

    def answer() -> bytes:
        got = receive(client, MEBIBYTE)
        client.sendall(b"thank you")
        return got

    assert run(read, write, answer) == [b"thank you", None, data]
    assert sorted(order) == ["has read", "has written", "reads"]


@pytest.mark.parametrize("size", [RECORD, MUCH])
def test_a_writer_that_is_killed_tears_no_record(connected: Ends, run: Run, size: int) -> None:
    """Parked in a send: what was begun leaves with the next data, of a writer that waited or came."""
    server, client = connected
    data = os.urandom(size)

    def write() -> None:
        while True:
            server.sendall(data)

    def conduct() -> bytes:
        victim = spawn(write)
        for _ in range(100):  # turns, in which it sends until the kernel takes no more
            sleep()
        waiting = spawn(server.sendall, b"<waited>")
        sleep()
        assert not victim.dead
        assert not waiting.dead
        victim.kill(FiberExit)
        sleep()
        assert victim.dead
        reading: list[bytes] = []
        reader = spawn(lambda: reading.append(read_to_end(client)))
        server.sendall(b"<came>")
        server.shutdown(socket.SHUT_WR)
        assert waiting.join(LIMIT)
        assert reader.join(LIMIT)
        return reading[0]

    got = run(conduct)[0]
    tail = b"<waited><came>"
    assert got.endswith(tail)
    sent = got[: -len(tail)]
    assert sent
    assert len(sent) % RECORD == 0
    assert sent == (data * (len(sent) // size + 1))[: len(sent)]


def test_a_handshake_that_waits_lets_others_run(ends: Ends, run: Run) -> None:
    server, client = ends
    order: list[str] = []

    def serve() -> None:
        server.do_handshake()
        order.append("handshake done")
        handshake_done.set()

    def ask() -> None:
        order.append("silent")
        client.do_handshake()
        client.recv(1)

    def look() -> None:
        order.append("another fiber")

    def end() -> None:
        handshake_done.wait()
        server.close()

    handshake_done = Event()
    run(serve, look, ask, end)
    assert order == ["another fiber", "silent", "handshake done"]


def test_time_limits(ends: Ends, run: Run) -> None:
    server, client = ends

    def serve() -> None:
        server.settimeout(0.01)
        with pytest.raises(TimeoutError):
            server.do_handshake()
        late.set()
        server.settimeout(LIMIT)
        server.do_handshake()
        server.settimeout(0.01)
        with pytest.raises(TimeoutError):
            server.recv(1)
        with pytest.raises(TimeoutError):
            server.sendall(bytes(MUCH))
        assert not server.close_notify(0.01)
        server.settimeout(0.0)
        with pytest.raises(ssl.SSLWantReadError):
            server.recv(1)

    def ask() -> None:
        late.wait()
        client.do_handshake()

    late = Event()
    run(serve, ask)


def test_a_sendall_that_timed_out_tears_no_record(connected: Ends, run: Run) -> None:
    server, client = connected

    def serve() -> None:
        server.settimeout(0.01)
        for _ in range(2):  # as much again: what is due already may still find room in between
            with pytest.raises(TimeoutError):
                server.sendall(bytes(MUCH))
        server.settimeout(LIMIT)
        reader = spawn(lambda: got.append(read_to_end(client)))
        server.sendall(b"the end")
        server.shutdown(socket.SHUT_WR)
        assert reader.join(LIMIT)

    got: list[bytes] = []
    run(serve)
    assert 0 < len(got[0]) < MUCH
    assert got[0].strip(b"\0") == b"the end"


def test_a_recv_that_timed_out_loses_nothing(connected: Ends, run: Run) -> None:
    server, client = connected

    def serve() -> bytes:
        server.settimeout(0.01)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                server.recv(10)
        client.sendall(b"late")
        return server.recv(10)

    assert run(serve) == [b"late"]


def test_a_reset_ends_the_wait(connected: Ends, run: Run) -> None:
    server, client = connected

    def use(function: Callable[[], Any]) -> None:
        with pytest.raises(ConnectionResetError):
            function()

    run(lambda: use(lambda: server.recv(1)), lambda: reset(client.inner))


def test_a_reset_ends_the_wait_for_room(connected: Ends, run: Run) -> None:
    server, client = connected

    def write() -> None:
        with pytest.raises(ConnectionResetError):
            server.sendall(bytes(MUCH))
        with pytest.raises(BrokenPipeError):
            server.sendall(b"more")

    run(write, lambda: reset(client.inner))


def test_less_is_asked_for_than_was_received(connected: Ends, run: Run) -> None:
    server, client = connected

    def serve() -> list[bytes]:
        client.sendall(b"0123456789")
        return [server.recv(3), server.recv(1), server.recv(), server.recv(0)]

    assert run(serve) == [[b"012", b"3", b"456789", b""]]


def test_what_recv_and_sendall_refuse(connected: Ends, run: Run) -> None:
    server, _client = connected

    def use() -> None:
        with pytest.raises(ValueError, match="flags"):
            server.recv(1, socket.MSG_PEEK)
        with pytest.raises(ValueError, match="flags"):
            server.sendall(b"x", socket.MSG_OOB)
        with pytest.raises(ValueError, match="negative buffersize"):
            server.recv(-1)
        with pytest.raises(TypeError):
            server.sendall("text")  # type: ignore[arg-type]
        server.close()
        for function in (lambda: server.recv(1), lambda: server.sendall(b"x")):
            with pytest.raises(OSError, match="Bad file descriptor"):
                function()

    run(use)


# --- tickets -----------------------------------------------------------------------------------


class Client:
    """A client of TLS 1.3 that sends its request with the end of its handshake, in one message.

    It stands on a socket that keeps messages apart: each `receive` is one send of the server.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, session: Any = None) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming, self._outgoing, False, "localhost", session=session
        )

    def ask(self, request: bytes) -> None:
        """Do the handshake, and send the request; an empty one is none."""
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.send()
                self._incoming.write(self._sock.recv(1 << 17))
        if request:
            self.tls.write(request)
        self.send()

    def send(self, message: bytes = b"") -> None:
        if message:
            self.tls.write(message)
        self._sock.sendall(self._outgoing.read())

    def receive(self) -> bytes:
        """What one send of the server brings; b"": no data."""
        self._incoming.write(self._sock.recv(1 << 17))
        try:
            return self.tls.read(1000)
        except ssl.SSLWantReadError:
            return b""

    @property
    def has_ticket(self) -> bool:
        return self.tls.session is not None and self.tls.session.has_ticket


Exchange = Callable[..., Client]


@pytest.fixture
def exchange(parts: Any, tls: TLS, certificates: Certificates, run: Run) -> Exchange:
    """Run a server and a client, over messages that are kept apart."""
    if sys.platform != "linux":
        pytest.skip("SOCK_SEQPACKET over Unix sockets is Linux's")
    context = certificates.client_context()

    def exchange(
        serve: Callable[[TLSSocket], Any], ask: Callable[[Client], Any], session: Any = None
    ) -> Client:
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with parts.FiberSocket.adopt(left) as ours, parts.FiberSocket.adopt(right) as theirs:
            server, client = wrap(parts, tls, ours), Client(theirs, context, session)
            run(lambda: serve(server), lambda: ask(client))
        return client

    return exchange


def test_tickets_leave_with_the_answer(exchange: Exchange) -> None:
    def serve(server: TLSSocket) -> None:
        server.do_handshake()
        assert server.recv(100) == b"request"
        server.sendall(b"answer")
        assert server.recv(100) == b"thanks"

    def ask(client: Client) -> None:
        client.ask(b"request")
        assert client.receive() == b"answer"
        assert client.has_ticket
        client.send(b"thanks")

    exchange(serve, ask)


def test_tickets_leave_before_the_next_wait(exchange: Exchange) -> None:
    def serve(server: TLSSocket) -> None:
        server.do_handshake()
        assert server.recv(100) == b"request"
        assert server.recv(100) == b"and more"

    def ask(client: Client) -> None:
        client.ask(b"request")
        assert client.receive() == b""
        assert client.has_ticket
        client.send(b"and more")

    first = exchange(serve, ask)
    assert not first.tls.session_reused
    assert exchange(serve, ask, first.tls.session).tls.session_reused


def test_tickets_leave_at_the_handshakes_end_where_nothing_was_asked(exchange: Exchange) -> None:
    order: list[str] = []

    def serve(server: TLSSocket) -> None:
        server.do_handshake()
        order.append("handshake done")
        assert server.recv(100) == b"request"
        server.sendall(b"answer")

    def ask(client: Client) -> None:
        client.ask(b"")
        assert client.receive() == b""
        assert order == ["handshake done"]
        assert client.has_ticket
        client.send(b"request")
        assert client.receive() == b"answer"

    exchange(serve, ask)
