"""``sockets.tlssocket`` in fibers: TLS parks them, and blocks nobody."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT
from tests.sockets.tlspeers import connection, receive

from everserve.fibers.engine import FiberSocket, Hub
from everserve.fibers.sync import Event, Semaphore
from everserve.sockets.tls import TLS, TLSSocket

Ends = tuple[TLSSocket, TLSSocket]


@pytest.fixture
def ends(tls: TLS, certificates: Certificates) -> Iterator[Ends]:
    """A server and a client on `FiberSocket`s, before their handshake."""
    server, client = (FiberSocket.adopt(sock) for sock in connection())
    context = certificates.client_context()
    yield (
        tls.wrap(server, turn=Semaphore(1)),
        TLSSocket(client, context, server_side=False, server_hostname="localhost"),
    )
    server.close()
    client.close()


def run(*functions: Callable[[], Any]) -> list[Any]:
    """Run all as fibers of one thread, to their ends; their results."""
    errors: list[BaseException] = []
    hub = Hub(on_error=lambda _fiber, error: errors.append(error))
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


def test_both_ends_in_one_thread(ends: Ends) -> None:
    server, client = ends

    def serve() -> bytes:
        server.do_handshake()
        said = server.recv(100)
        server.sendall(said.upper())
        assert server.close_notify(LIMIT, wait=True)
        return said

    def ask() -> bytes:
        client.do_handshake()
        client.sendall(b"hello")
        answer = client.recv(100)
        assert client.recv(1) == b""
        client.close_notify()
        return answer

    assert run(serve, ask) == [b"hello", b"HELLO"]


def test_a_reader_and_writers_of_one_connection(ends: Ends) -> None:
    """What fills the kernel's buffers many times over, both ways at once."""
    server, client = ends
    size, agreed = 8 << 20, Event()
    data = os.urandom(size)

    def send(sock: TLSSocket) -> None:
        agreed.wait()
        sock.sendall(data)

    def serve() -> bytes:
        server.do_handshake()
        return receive(server, size)

    def ask() -> bytes:
        client.do_handshake()
        agreed.set()
        return receive(client, 3 * size)

    results = run(serve, ask, lambda: send(client), *[lambda: send(server)] * 3)
    assert results[0] == data
    assert len(results[1]) == 3 * size


def test_a_handshake_that_waits_lets_others_run(ends: Ends) -> None:
    server, client = ends
    order: list[str] = []

    def serve() -> None:
        server.do_handshake()
        order.append("agreed")

    def ask() -> None:
        order.append("silent")
        client.do_handshake()
        client.recv(1)

    def look() -> None:
        order.append("somebody else")

    def end() -> None:
        while "agreed" not in order:
            Event().wait(0.001)
        server.close()

    run(serve, look, ask, end)
    assert order == ["somebody else", "silent", "agreed"]


def test_time_limits(ends: Ends) -> None:
    server, client = ends

    def serve() -> None:
        server.settimeout(0.01)
        with pytest.raises(TimeoutError):
            server.do_handshake()
        server.settimeout(LIMIT)
        server.do_handshake()
        server.settimeout(0.01)
        with pytest.raises(TimeoutError):
            server.recv(1)
        with pytest.raises(TimeoutError):
            server.sendall(bytes(64 << 20))
        assert not server.close_notify(0.01)
        server.settimeout(0.0)
        with pytest.raises(ssl.SSLWantReadError):
            server.recv(1)

    def ask() -> None:
        Event().wait(0.05)
        client.do_handshake()

    run(serve, ask)
