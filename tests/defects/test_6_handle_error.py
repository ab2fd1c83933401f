"""Issue 2, 2.6: ``handle_error`` logs; a peer that disconnected is one debug line."""

from __future__ import annotations

import logging
import socket
import sys
from types import ModuleType
from typing import Any

import pytest
from tests.clients import connect, reset
from tests.defects.kinds import Serve

ADDRESS = ("127.0.0.1", 0)


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "everserve")


def test_a_handlers_exception_is_an_error_with_its_traceback(
    socketserver_module: ModuleType,
    serve: Serve,
    limit: float,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Handler(socketserver_module.BaseRequestHandler):
        def handle(self) -> None:
            raise ValueError("a fault of the handler")

    server = socketserver_module.TCPServer(ADDRESS, Handler)
    serve(server)
    with connect(server.server_address, limit=limit) as client:
        assert client.recv(100) == b""
        peer = client.getsockname()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("everserve", logging.ERROR)
    assert str(peer) in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    assert capfd.readouterr().err == ""


def test_a_reset_is_one_debug_line(
    socketserver_module: ModuleType, serve: Serve, limit: float, caplog: pytest.LogCaptureFixture
) -> None:
    class Handler(socketserver_module.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"ready")
            self.request.recv(100)
            self.server._BaseServer__shutdown_request = True
            self.request.recv(100)

    server = socketserver_module.TCPServer(ADDRESS, Handler)
    thread = serve(server)
    client = connect(server.server_address, limit=limit)
    assert client.recv(100) == b"ready"
    client.sendall(b"now")
    peer = client.getsockname()
    reset(client)
    thread.result(limit)
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert str(peer) in record.getMessage()
    assert not record.exc_info


def test_a_timeout_of_the_handlers_own_is_one_debug_line(
    socketserver_module: ModuleType, serve: Serve, limit: float, caplog: pytest.LogCaptureFixture
) -> None:
    class Handler(socketserver_module.StreamRequestHandler):
        timeout = 0.001

        def handle(self) -> None:
            self.rfile.read(1)

    server = socketserver_module.TCPServer(ADDRESS, Handler)
    serve(server)
    with connect(server.server_address, limit=limit) as client:
        assert client.recv(100) == b""
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert not record.exc_info


@pytest.mark.parametrize("kind", [ConnectionResetError, BrokenPipeError, ConnectionAbortedError])
def test_another_connections_reset_is_the_handlers_own_error(
    kind: type[OSError],
    socketserver_module: ModuleType,
    serve: Serve,
    limit: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Handler(socketserver_module.BaseRequestHandler):
        def handle(self) -> None:
            raise kind("the database went away")

    server = socketserver_module.TCPServer(ADDRESS, Handler)
    serve(server)
    with connect(server.server_address, limit=limit) as client:
        assert client.recv(100) == b""
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None


def test_another_connections_reset_in_a_datagrams_handler(
    socketserver_module: ModuleType, serve: Serve, limit: float, caplog: pytest.LogCaptureFixture
) -> None:
    class Handler(socketserver_module.BaseRequestHandler):
        def handle(self) -> None:
            self.server._BaseServer__shutdown_request = True
            raise ConnectionResetError("the database went away")

    server = socketserver_module.UDPServer(ADDRESS, Handler)
    thread = serve(server)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"ping", server.server_address)
        thread.result(limit)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None


@pytest.mark.documented
def test_an_overridden_handle_error_is_called_for_a_reset_too(
    socketserver_module: ModuleType, serve: Serve, limit: float, caplog: pytest.LogCaptureFixture
) -> None:
    class Handler(socketserver_module.BaseRequestHandler):
        def handle(self) -> None:
            self.server._BaseServer__shutdown_request = True
            self.request.recv(100)

    class Server(socketserver_module.TCPServer):
        error: Any = None

        def handle_error(self, request: Any, client_address: Any) -> None:
            self.error = sys.exc_info()[1]

    server = Server(ADDRESS, Handler)
    thread = serve(server)
    reset(connect(server.server_address, limit=limit))
    thread.result(limit)
    assert isinstance(server.error, ConnectionResetError)
    assert caplog.records == []
