"""Issue 2, 2.4: an exception in a hook ends only its connection; ``handle_error`` is called."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from tests.clients import connect
from tests.defects.kinds import Echoes, Serve

ADDRESS = ("127.0.0.1", 0)


class Recording:
    """A mix-in that records the calls of ``handle_error``."""

    def __init__(self, *args: Any) -> None:
        self.errors: list[tuple[str, Any]] = []
        super().__init__(*args)

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.errors.append((str(sys.exc_info()[1]), client_address))


def test_get_request(
    socketserver_module: ModuleType, Echo: type, serve: Serve, echoes: Echoes
) -> None:
    class Server(Recording, socketserver_module.TCPServer):
        def get_request(self) -> Any:
            if not self.errors:
                raise ValueError("no request")
            return super().get_request()

    server = Server(ADDRESS, Echo)
    serve(server)
    assert echoes(server.server_address)
    assert server.errors == [("no request", None)]


@pytest.mark.parametrize("hook", ["shutdown_request", "close_request"])
def test_a_request_that_cannot_be_closed(
    hook: str, socketserver_module: ModuleType, Echo: type, serve: Serve, echoes: Echoes
) -> None:
    class Server(Recording, socketserver_module.TCPServer):
        refusals = 0

    def fail_twice(self: Any, request: Any) -> None:
        if self.refusals < 2:  # at the end of the request, and after handle_error
            self.refusals += 1
            request.close()
            raise ValueError("cannot close")
        getattr(super(Server, self), hook)(request)

    setattr(Server, hook, fail_twice)
    server = Server(ADDRESS, Echo)
    serve(server)
    for _ in range(2):
        assert echoes(server.server_address)
    assert [error for error, _ in server.errors] == ["cannot close"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_request_that_cannot_be_closed_in_its_thread(
    socketserver_module: ModuleType, Echo: type, serve: Serve, echoes: Echoes, limit: float
) -> None:
    class Server(Recording, socketserver_module.ThreadingTCPServer):
        def close_request(self, request: Any) -> None:
            request.close()
            raise ValueError("cannot close")

    server = Server(ADDRESS, Echo)
    serve(server)
    assert echoes(server.server_address)
    server.server_close()
    assert [error for error, _ in server.errors] == ["cannot close"]


@pytest.mark.parametrize(
    "hook",
    [
        "verify_request",
        pytest.param("process_request", marks=pytest.mark.documented),
        pytest.param("finish_request", marks=pytest.mark.documented),
    ],
)
def test_hooks_with_a_request(
    hook: str,
    socketserver_module: ModuleType,
    Echo: type,
    serve: Serve,
    echoes: Echoes,
    limit: float,
) -> None:
    class Server(Recording, socketserver_module.TCPServer):
        pass

    def fail_once(self: Any, request: Any, client_address: Any) -> Any:
        if not self.errors:
            raise ValueError(hook)
        return getattr(super(Server, self), hook)(request, client_address)

    setattr(Server, hook, fail_once)
    server = Server(ADDRESS, Echo)
    serve(server)
    with connect(server.server_address, limit=limit) as client:
        assert client.recv(100) == b""
        peer = client.getsockname()
    assert echoes(server.server_address)
    assert server.errors == [(hook, peer)]


@pytest.mark.documented
def test_the_handler(socketserver_module: ModuleType, serve: Serve) -> None:
    class Handler(socketserver_module.BaseRequestHandler):
        def handle(self) -> None:
            raise ValueError("handle")

    class Server(Recording, socketserver_module.TCPServer):
        pass

    server = Server(ADDRESS, Handler)
    serve(server)
    for number in range(2):
        with connect(server.server_address) as client:
            assert client.recv(100) == b""
            assert server.errors[number] == ("handle", client.getsockname())
