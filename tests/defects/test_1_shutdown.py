"""Issue 2, 2.1: ``shutdown()`` never deadlocks, and also counts before ``serve_forever``."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import ModuleType

import pytest
from tests.clients import Background, connect
from tests.defects.kinds import Echoes, Serve

ADDRESS = ("127.0.0.1", 0)


def test_from_the_serving_thread(
    socketserver_module: ModuleType, Echo: type, serve: Serve, limit: float
) -> None:
    class Server(socketserver_module.TCPServer):
        def service_actions(self) -> None:
            self.shutdown()

    serve(Server(ADDRESS, Echo), 0.01).result(limit)


def test_from_a_handler_of_a_serial_server(
    socketserver_module: ModuleType, serve: Serve, limit: float
) -> None:
    class Handler(socketserver_module.BaseRequestHandler):
        def handle(self) -> None:
            self.server.shutdown()
            self.request.sendall(b"done")

    server = socketserver_module.TCPServer(ADDRESS, Handler)
    thread = serve(server)
    with connect(server.server_address, limit=limit) as client:
        assert client.recv(100) == b"done"
    thread.result(limit)


SIGNALLED = """
import signal, sys, {module} as socketserver
server = socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler)
signal.signal(signal.SIGALRM, lambda *_: server.shutdown())
signal.setitimer(signal.ITIMER_REAL, 0.05)
server.serve_forever(0.02)
print("ended")
"""


def test_from_a_signal_handler(socketserver_module: ModuleType, limit: float) -> None:
    script = SIGNALLED.format(module=socketserver_module.__name__)
    child = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=limit + 0.5
    )
    assert (child.stdout, child.stderr) == ("ended\n", "")


def test_from_a_signal_handler_while_a_thread_waits_for_it_too(
    socketserver_module: ModuleType, limit: float
) -> None:
    script = SIGNALLED.format(module=socketserver_module.__name__)
    script = script.replace(
        "server.serve_forever",
        "import threading\n"
        "class Server(socketserver.TCPServer): pass\n"
        "threading.Thread(target=server.shutdown, daemon=True).start()\n"
        "signal.raise_signal(signal.SIGALRM)\n"
        "server.serve_forever",
    )
    child = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=limit + 0.5
    )
    assert (child.stdout, child.stderr) == ("ended\n", "")


def test_before_serve_forever_it_counts_once(
    socketserver_module: ModuleType,
    Echo: type,
    serve: Serve,
    echoes: Echoes,
    limit: float,
) -> None:
    server = socketserver_module.TCPServer(ADDRESS, Echo)
    try:
        Background(server.shutdown).result(limit)
        Background(server.serve_forever, 0.05).result(limit)
        thread = serve(server)
        assert echoes(server.server_address)
        Background(server.shutdown).result(limit)
        thread.result(limit)
    finally:
        server.server_close()


@pytest.mark.documented
def test_from_another_thread_and_again_after_the_end(
    socketserver_module: ModuleType,
    Echo: type,
    serve: Serve,
    echoes: Echoes,
    limit: float,
) -> None:
    server = socketserver_module.TCPServer(ADDRESS, Echo)
    thread = serve(server)
    assert echoes(server.server_address)
    Background(server.shutdown).result(limit)
    thread.result(limit)
    Background(server.shutdown).result(limit)


@pytest.mark.documented
def test_from_many_threads_at_once(
    socketserver_module: ModuleType, Echo: type, serve: Serve, limit: float
) -> None:
    server = socketserver_module.TCPServer(ADDRESS, Echo)
    thread = serve(server)
    together = threading.Barrier(5)

    def shut_down() -> None:
        together.wait(limit)
        server.shutdown()

    for caller in [Background(shut_down) for _ in range(5)]:
        caller.result(limit)
    thread.result(limit)


@pytest.mark.documented
def test_the_private_flag_ends_the_loop_from_within_a_handler(
    socketserver_module: ModuleType, serve: Serve, limit: float
) -> None:
    class Handler(socketserver_module.BaseRequestHandler):
        def handle(self) -> None:
            self.server._BaseServer__shutdown_request = True

    server = socketserver_module.TCPServer(ADDRESS, Handler)
    assert not server._BaseServer__is_shut_down.is_set()
    thread = serve(server)
    with connect(server.server_address, limit=limit) as client:
        assert client.recv(100) == b""
    thread.result(limit)
    assert server._BaseServer__is_shut_down.is_set()
