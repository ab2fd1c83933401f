"""Issue 2, 2.10: only the server's own children are reaped; the threads cost O(1) a request."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from types import ModuleType

import pytest
from tests.clients import Background, connect
from tests.defects.kinds import Echoes, Serve

ADDRESS = ("127.0.0.1", 0)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_of_the_program_keeps_its_exit_status(
    socketserver_module: ModuleType, Echo: type, serve: Serve, echoes: Echoes, limit: float
) -> None:
    class Server(socketserver_module.ForkingTCPServer):
        max_children = 1

    server = Server(ADDRESS, Echo)
    foreign = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    os.waitid(os.P_PID, foreign.pid, os.WEXITED | os.WNOWAIT)
    serve(server)
    for _ in range(3):
        assert echoes(server.server_address)
    server._BaseServer__shutdown_request = True
    Background(server.server_close).result(limit)
    assert foreign.wait(limit) == 7


def test_a_request_costs_the_same_however_many_run(
    socketserver_module: ModuleType,
    serve: Serve,
    limit: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at: list[threading.Thread] = []
    is_alive = threading.Thread.is_alive

    class Handler(socketserver_module.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"ready")
            self.request.recv(1)

    server = socketserver_module.ThreadingTCPServer(ADDRESS, Handler)
    serving = serve(server)

    def count(self: threading.Thread) -> bool:
        if threading.current_thread() is serving:
            looked_at.append(self)
        return is_alive(self)

    monkeypatch.setattr(threading.Thread, "is_alive", count)
    clients = []
    for _ in range(20):
        clients.append(connect(server.server_address, limit=limit))
        assert clients[-1].recv(100) == b"ready"
    for client in clients:
        client.close()
    assert len(looked_at) <= len(clients)


def test_threads_that_have_ended_are_removed_at_once(
    socketserver_module: ModuleType, Echo: type, serve: Serve, limit: float
) -> None:
    server = socketserver_module.ThreadingTCPServer(ADDRESS, Echo)
    serve(server)
    before = set(threading.enumerate())
    for _ in range(5):
        with connect(server.server_address, limit=limit) as client:
            client.sendall(b"ping")
            assert client.recv(100) == b"ping"
            assert client.recv(100) == b""
    for thread in set(threading.enumerate()) - before:
        thread.join(limit)
    assert len(server._threads) == 0
