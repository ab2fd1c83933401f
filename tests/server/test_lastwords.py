"""``server.lastwords``: the socket of a stopped datagram server stays for the one that stopped it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.clients import LIMIT, Background
from tests.scenes import LOOPBACK, Heard

from everserve.combos import ThreadingUDPServer
from everserve.errors import ServerClosedError
from everserve.events import Stopped
from everserve.server import stopping


class StopsAndWaits:
    """A handler that stops its server, then replies when a test lets it."""

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self.go_on = threading.Event()
        self.result: list[Any] = []

    def __call__(self, request: Any, client_address: Any, server: Any) -> None:
        server.stop(self.grace)
        assert self.go_on.wait(LIMIT)
        try:
            self.result.append(request[1].sendto(b"bye", client_address))
        except OSError as error:
            self.result.append(error)


@pytest.fixture
def client() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))
        client.settimeout(LIMIT)
        yield client


def stopped(handler: StopsAndWaits, client: socket.socket) -> Any:
    """A server that its handler has stopped; the handler is not done."""
    server, heard = ThreadingUDPServer(LOOPBACK, handler), Heard()
    server.subscribe(heard)
    thread = Background(server.serve_forever)
    client.sendto(b"stop", server.server_address)
    heard.wait_for(Stopped)
    thread.result()
    return server


def test_it_is_open_until_the_reply_is_sent(client: socket.socket) -> None:
    handler = StopsAndWaits(3600)
    server = stopped(handler, client)
    assert server.fileno() != -1
    with pytest.raises(ServerClosedError):
        server.serve_forever()
    with pytest.raises(ServerClosedError):
        server.handle_request()
    handler.go_on.set()
    assert client.recv(100) == b"bye"
    server._everserve.life.notifier.wait_until(lambda: server.fileno() == -1)
    assert len(server._everserve.watchdog) == 0


def test_it_is_not_open_for_longer_than_the_grace(
    client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "LAST_WAIT", 0.01)
    handler = StopsAndWaits(0)
    server = stopped(handler, client)
    server._everserve.life.notifier.wait_until(lambda: server.fileno() == -1)
    handler.go_on.set()
    server._everserve.life.notifier.wait_until(lambda: not server.connections)
    assert isinstance(handler.result[0], OSError)


def test_server_close_closes_it_at_once(client: socket.socket) -> None:
    handler = StopsAndWaits(3600)
    server = stopped(handler, client)
    server.server_close()
    assert server.fileno() == -1
    assert len(server._everserve.watchdog) == 0
    handler.go_on.set()
    server._everserve.life.notifier.wait_until(lambda: not server.connections)


def test_a_socket_that_has_replaced_it_is_let_be(client: socket.socket) -> None:
    handler = StopsAndWaits(3600)
    server = stopped(handler, client)
    old = server.socket
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server.socket:
        server._must_be_open()
        handler.go_on.set()
        server._everserve.life.notifier.wait_until(lambda: old.fileno() == -1)
        assert server.fileno() != -1
