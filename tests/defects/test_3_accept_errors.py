"""Issue 2, 2.3: the errors of accept are classified: go on, back off, or end."""

from __future__ import annotations

import errno
import json
import logging
import socket
import subprocess
import sys
import threading
from types import ModuleType
from typing import Any

import pytest
from tests.clients import connect
from tests.defects.kinds import Echoes, Serve

ADDRESS = ("127.0.0.1", 0)
TOO_MANY = 50
"""Failed attempts in a row that show a spin: backing off makes 9 of them in the first second."""


class Failing:
    """A mix-in whose ``get_request`` raises ``error`` while it is set."""

    error: OSError | None = None

    def __init__(self, *args: Any) -> None:
        self.failures = 0
        self.failed = threading.Event()
        self.span = threading.Event()
        super().__init__(*args)

    def get_request(self) -> Any:
        if self.error is None:
            return super().get_request()  # type: ignore[misc]
        self.failures += 1
        self.failed.set()
        if self.failures == TOO_MANY:
            self.span.set()
        raise self.error


@pytest.mark.parametrize("name", ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"])
def test_exhaustion_backs_off_and_the_waiting_client_is_served(
    name: str, socketserver_module: ModuleType, Echo: type, serve: Serve, limit: float
) -> None:
    class Server(Failing, socketserver_module.TCPServer):
        error = OSError(getattr(errno, name), "exhausted")

    server = Server(ADDRESS, Echo)
    serve(server)
    with connect(server.server_address, limit=limit) as client:
        client.sendall(b"ping")
        assert server.failed.wait(limit)
        assert not server.span.wait(0.05), "the accept loop spins"
        server.error = None
        assert client.recv(100) == b"ping"


def test_exhaustion_is_logged_once(
    socketserver_module: ModuleType,
    Echo: type,
    serve: Serve,
    limit: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Server(Failing, socketserver_module.TCPServer):
        error = OSError(errno.EMFILE, "too many open files")

        def get_request(self) -> Any:
            if self.failures == 4:
                self.error = None
            return super().get_request()

    server = Server(ADDRESS, Echo)
    serve(server)
    with connect(server.server_address, limit=limit) as client:
        client.sendall(b"ping")
        assert client.recv(100) == b"ping"
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("everserve", logging.WARNING)
    assert "too many open files" in record.getMessage()


FEW_DESCRIPTORS = """
import json, logging, os, resource, socket, sys, threading
import {module} as socketserver

logged = []
class Logged(logging.Handler):
    def emit(self, record):
        logged.append(record.getMessage())
logging.getLogger("everserve").addHandler(Logged())

class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(self.request.recv(100))

class Server(socketserver.TCPServer):
    attempts = 0
    span = threading.Event()
    def get_request(self):
        self.attempts += 1
        if self.attempts == 50:
            self.span.set()
        return super().get_request()

server = Server(("127.0.0.1", 0), Handler)
client = socket.create_connection(server.server_address, 10)
client.sendall(b"ping")
thread = threading.Thread(target=server.serve_forever, daemon=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
filling = []
try:
    while True:
        filling.append(os.dup(0))
except OSError:
    pass
thread.start()
span = server.span.wait(0.4)
for descriptor in filling:
    os.close(descriptor)
answer = client.recv(100).decode()
print(json.dumps({{"span": span, "answer": answer, "logged": logged}}))
os._exit(0)
"""


def test_a_process_without_descriptors_left(socketserver_module: ModuleType) -> None:
    script = FEW_DESCRIPTORS.format(module=socketserver_module.__name__)
    child = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=20
    )
    report = json.loads(child.stdout)
    assert not report["span"], "the accept loop spins"
    assert report["answer"] == "ping"
    assert len(report["logged"]) == 1
    assert "Too many open files" in report["logged"][0]


@pytest.mark.parametrize("name", ["EBADF", "EINVAL", "ENOTSOCK", "EFAULT"])
def test_an_unusable_listener_ends_serve_forever(
    name: str, socketserver_module: ModuleType, Echo: type, serve: Serve, limit: float
) -> None:
    class Server(Failing, socketserver_module.TCPServer):
        error = OSError(getattr(errno, name), "unusable")

    server = Server(ADDRESS, Echo)
    thread = serve(server)
    with connect(server.server_address, limit=limit):
        with pytest.raises(OSError, match="unusable") as raised:
            thread.result(limit)
    assert raised.value is server.error


def test_a_listener_that_is_shut_down_ends_serve_forever(
    socketserver_module: ModuleType, Echo: type, serve: Serve, limit: float
) -> None:
    server = socketserver_module.TCPServer(ADDRESS, Echo)
    thread = serve(server)
    server.socket.shutdown(socket.SHUT_RDWR)
    with pytest.raises(OSError) as raised:
        thread.result(limit)
    assert raised.value.errno == errno.EINVAL


@pytest.mark.documented
@pytest.mark.parametrize("name", ["ECONNABORTED", "EPROTO", "EINTR", "EAGAIN", "EPERM", "ENETDOWN"])
def test_an_error_of_one_connection_is_passed_over_at_once(
    name: str, socketserver_module: ModuleType, Echo: type, serve: Serve, echoes: Echoes
) -> None:
    class Server(Failing, socketserver_module.TCPServer):
        error = OSError(getattr(errno, name), "gone")

        def get_request(self) -> Any:
            if self.failures == 3:
                self.error = None
            return super().get_request()

    server = Server(ADDRESS, Echo)
    serve(server)
    assert echoes(server.server_address)
    assert server.failures == 3
