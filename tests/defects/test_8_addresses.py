"""Issue 2, 2.8: the address determines the family, and bind calls no resolver."""

from __future__ import annotations

import socket
from types import ModuleType
from typing import Any

import pytest
from tests.clients import connect
from tests.defects.kinds import Echoes, Serve


@pytest.mark.parametrize("kind", ["TCPServer", "UDPServer"])
def test_an_ipv6_address_makes_an_ipv6_server(
    kind: str, socketserver_module: ModuleType, Echo: type
) -> None:
    with getattr(socketserver_module, kind)(("::1", 0), Echo) as server:
        assert server.address_family == server.socket.family == socket.AF_INET6
        assert server.server_address[0] == "::1"


def test_an_ipv6_server_answers(
    socketserver_module: ModuleType, Echo: type, serve: Serve, echoes: Echoes
) -> None:
    server = socketserver_module.TCPServer(("::1", 0), Echo)
    serve(server)
    assert echoes(server.server_address)


@pytest.mark.parametrize("host", ["", "::"])
def test_dual_stack_is_one_attribute(
    host: str, socketserver_module: ModuleType, Echo: type, serve: Serve, limit: float
) -> None:
    class Server(socketserver_module.TCPServer):
        dual_stack = True

    server = Server((host, 0), Echo)
    serve(server)
    for loopback in ("127.0.0.1", "::1"):
        with connect((loopback, server.server_address[1]), limit=limit) as client:
            client.sendall(b"ping")
            assert client.recv(100) == b"ping"


class NoResolver:
    """A socket that only binds to numeric addresses."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def bind(self, address: Any) -> None:
        socket.inet_pton(self.sock.family, address[0])
        self.sock.bind(address)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)


def test_localhost_needs_no_resolver(socketserver_module: ModuleType, Echo: type) -> None:
    server = socketserver_module.TCPServer(("localhost", 0), Echo, bind_and_activate=False)
    with server:
        server.socket = NoResolver(server.socket)
        server.server_bind()
        assert server.server_address[0] == "127.0.0.1"


@pytest.mark.documented
def test_every_interface_stays_ipv4(socketserver_module: ModuleType, Echo: type) -> None:
    with socketserver_module.TCPServer(("", 0), Echo) as server:
        assert server.address_family == server.socket.family == socket.AF_INET
        assert server.server_address[0] == "0.0.0.0"


@pytest.mark.documented
def test_the_family_that_a_class_sets_counts(socketserver_module: ModuleType, Echo: type) -> None:
    class Server(socketserver_module.TCPServer):
        address_family = socket.AF_INET6

    with Server(("::1", 0), Echo) as server:
        assert server.socket.family == socket.AF_INET6
        assert server.server_address[0] == "::1"
