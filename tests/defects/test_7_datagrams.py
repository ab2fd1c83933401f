"""Issue 2, 2.7: a datagram is received whole; a handler that writes nothing sends no reply."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from types import ModuleType

import pytest
from tests.clients import Background
from tests.defects.kinds import Serve

ADDRESS = ("127.0.0.1", 0)


@pytest.fixture
def client(limit: float) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(limit)
        yield client


@pytest.mark.parametrize("size", [20_000, 65_507])
def test_a_datagram_is_received_whole(
    size: int, socketserver_module: ModuleType, serve: Serve, client: socket.socket
) -> None:
    class Handler(socketserver_module.DatagramRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"%d" % len(self.packet))

    server = socketserver_module.UDPServer(ADDRESS, Handler)
    serve(server)
    client.sendto(bytes(size), server.server_address)
    assert client.recv(100) == b"%d" % size


def test_a_truncated_datagram_is_reported(
    socketserver_module: ModuleType,
    serve: Serve,
    client: socket.socket,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Handler(socketserver_module.DatagramRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"%d" % len(self.packet))

    class Server(socketserver_module.UDPServer):
        max_packet_size = 10

    server = Server(ADDRESS, Handler)
    serve(server)
    for length in (10, 11):
        client.sendto(bytes(length), server.server_address)
        assert client.recv(100) == b"10"
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("everserve", logging.WARNING)
    assert str(client.getsockname()[1]) in record.getMessage()
    assert "max_packet_size = 10" in record.getMessage()


@pytest.mark.new
def test_a_truncated_datagram_has_a_flag(
    socketserver_module: ModuleType, serve: Serve, client: socket.socket
) -> None:
    class Handler(socketserver_module.DatagramRequestHandler):
        def handle(self) -> None:
            assert self.truncated is self.request.truncated
            self.wfile.write(b"%d" % self.truncated)

    class Server(socketserver_module.UDPServer):
        max_packet_size = 10

    server = Server(ADDRESS, Handler)
    serve(server)
    for length, flag in ((10, b"0"), (11, b"1")):
        client.sendto(bytes(length), server.server_address)
        assert client.recv(100) == flag


def test_without_a_write_no_reply_is_sent(
    socketserver_module: ModuleType, serve: Serve, client: socket.socket, limit: float
) -> None:
    class Handler(socketserver_module.DatagramRequestHandler):
        def handle(self) -> None:
            if self.packet == b"speak":
                self.wfile.write(b"here")

    server = socketserver_module.UDPServer(ADDRESS, Handler)
    thread = serve(server)
    client.sendto(b"hush", server.server_address)
    client.sendto(b"speak", server.server_address)
    assert client.recv(100) == b"here"
    Background(server.shutdown).result(limit)
    thread.result(limit)
