"""Issue 2, 2.12: ``KeyboardInterrupt`` and ``SystemExit`` pass through, as documented."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from types import ModuleType

import pytest
from tests.clients import Background, connect
from tests.defects.kinds import Serve

ADDRESS = ("127.0.0.1", 0)


@pytest.mark.documented
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_out_of_a_handler_of_a_serial_server(
    kind: type[BaseException], socketserver_module: ModuleType, serve: Serve, limit: float
) -> None:
    class Handler(socketserver_module.BaseRequestHandler):
        def handle(self) -> None:
            raise kind

    server = socketserver_module.TCPServer(ADDRESS, Handler)
    thread = serve(server)
    with connect(server.server_address, limit=limit) as client:
        assert client.recv(100) == b""
    with pytest.raises(kind):
        thread.result(limit)


@pytest.mark.documented
def test_a_handlers_exit_in_a_thread_does_not_end_the_server(
    socketserver_module: ModuleType,
    serve: Serve,
    limit: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)  # silent about exits

    class Handler(socketserver_module.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"leaving")
            raise SystemExit(3)

    server = socketserver_module.ThreadingTCPServer(ADDRESS, Handler)
    thread = serve(server)
    for _ in range(2):
        with connect(server.server_address, limit=limit) as client:
            assert client.recv(100) == b"leaving"
            assert client.recv(100) == b""
    assert thread.is_alive()
    for other in set(threading.enumerate()) - {thread, threading.current_thread()}:
        if other.name.endswith("(process_request_thread)"):
            other.join(limit)


INTERRUPTED = """
import os, signal, threading, {module} as socketserver

class Server(socketserver.TCPServer):
    def server_close(self):
        super().server_close()
        print("closed", flush=True)

with Server(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        server.serve_forever(0.02)
    except KeyboardInterrupt:
        print("interrupted")
    server.shutdown()  # returns at once
"""


@pytest.mark.documented
def test_the_keyboard_interrupts_serve_forever(
    socketserver_module: ModuleType, limit: float
) -> None:
    script = INTERRUPTED.format(module=socketserver_module.__name__)
    child = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=limit + 5
    )
    assert (child.stdout, child.stderr) == ("interrupted\nclosed\n", "")


@pytest.mark.documented
def test_an_interrupted_server_can_be_shut_down_before_it_serves_again(
    socketserver_module: ModuleType, serve: Serve, limit: float
) -> None:
    class Server(socketserver_module.TCPServer):
        def service_actions(self) -> None:
            raise KeyboardInterrupt

    server = Server(ADDRESS, socketserver_module.BaseRequestHandler)
    with pytest.raises(KeyboardInterrupt):
        serve(server, 0.01).result(limit)
    assert signal.getsignal(signal.SIGINT) is not None
    Background(server.shutdown).result(limit)
    Background(server.serve_forever, 0.01).result(limit)


EXITING = """
import socket, {module} as socketserver

class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        print("last words")
        raise SystemExit(3)

with socketserver.ForkingTCPServer(("127.0.0.1", 0), Handler) as server:
    with socket.create_connection(server.server_address, 10) as client:
        server.handle_request()
        assert client.recv(100) == b""
"""


def test_what_a_child_printed_is_not_lost_by_its_exit(socketserver_module: ModuleType) -> None:
    script = EXITING.format(module=socketserver_module.__name__)
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    child = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=20, env=environment
    )
    assert (child.stdout, child.stderr) == ("last words\n", "")
