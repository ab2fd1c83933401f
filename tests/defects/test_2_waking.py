"""Issue 2, 2.2: a shutdown takes effect at once, and an idle server does not wake up."""

from __future__ import annotations

from types import ModuleType

import pytest
from tests.clients import Background
from tests.defects.kinds import Echoes, Selects, Serve

ADDRESS = ("127.0.0.1", 0)
MIX_INS = ["", "Threading", "Forking"]


def test_shutdown_does_not_wait_for_the_poll_interval(
    socketserver_module: ModuleType, Echo: type, serve: Serve, limit: float
) -> None:
    server = socketserver_module.TCPServer(ADDRESS, Echo)
    thread = serve(server, poll_interval=3600)
    Background(server.shutdown).result(limit)
    thread.result(limit)


@pytest.mark.parametrize("mix_in", MIX_INS)
def test_an_idle_server_waits_without_end(
    mix_in: str,
    socketserver_module: ModuleType,
    Echo: type,
    serve: Serve,
    selects: Selects,
    limit: float,
) -> None:
    server = getattr(socketserver_module, f"{mix_in}TCPServer")(ADDRESS, Echo)
    thread = serve(server, poll_interval=0.2)
    Background(server.shutdown).result(limit)
    thread.result(limit)
    assert selects.timeouts == [None]


def test_a_request_is_one_wake_up(
    socketserver_module: ModuleType,
    Echo: type,
    serve: Serve,
    echoes: Echoes,
    selects: Selects,
    limit: float,
) -> None:
    server = socketserver_module.TCPServer(ADDRESS, Echo)
    thread = serve(server, poll_interval=0.2)
    assert echoes(server.server_address)
    Background(server.shutdown).result(limit)
    thread.result(limit)
    assert set(selects.timeouts) == {None}
    assert len(selects.timeouts) <= 2


@pytest.mark.documented
def test_an_overridden_service_actions_runs_every_poll_interval(
    socketserver_module: ModuleType, Echo: type, serve: Serve, selects: Selects
) -> None:
    class Server(socketserver_module.TCPServer):
        turns = 0

        def service_actions(self) -> None:
            super().service_actions()
            self.turns += 1
            if self.turns == 3:
                self._BaseServer__shutdown_request = True

    server = Server(ADDRESS, Echo)
    serve(server, poll_interval=0.01).result()
    assert server.turns == 3
    assert selects.timeouts == [0.01, 0.01, 0.01]
