"""``server.served``: ``with server.running() as address``, and the new attributes of a server."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tests.clients import LIMIT, Background, ask, connect
from tests.scenes import LOOPBACK, Echo, EventRecorder, Gate

from everserve.errors import AlreadyServingError, ServerClosedError, TLSConfigError
from everserve.events import Finished
from everserve.lifecycle.state import ServerState
from everserve.server.tcp import TCPServer


def test_it_serves_while_the_block_runs() -> None:
    server = TCPServer(LOOPBACK, Echo)
    with server.running() as address:
        assert address == server.server_address
        assert server.state is ServerState.SERVING
        assert ask(address) == b"ping"
        (thread,) = [t for t in threading.enumerate() if t.name.startswith("TCPServer (")]
    assert not thread.is_alive()
    assert server.state is ServerState.STOPPED


def test_an_error_of_the_block_is_raised() -> None:
    server = TCPServer(LOOPBACK, Echo)
    with pytest.raises(ZeroDivisionError), server.running():
        raise ZeroDivisionError
    assert server.state is ServerState.STOPPED


def test_an_error_of_serve_forever_is_raised_at_the_end() -> None:
    class Server(TCPServer):
        def service_actions(self) -> None:
            failing.set()
            raise ZeroDivisionError

    failing = threading.Event()
    with pytest.raises(ZeroDivisionError), Server(LOOPBACK, Echo).running(poll_interval=0.001):
        assert failing.wait(LIMIT)


def test_a_failure_to_start_is_raised_before_the_block() -> None:
    server = TCPServer(LOOPBACK, Echo)
    server.server_close()
    with pytest.raises(ServerClosedError), server.running():
        raise AssertionError("not reached")


def test_it_cannot_run_twice() -> None:
    server = TCPServer(LOOPBACK, Echo)
    with server.running() as address:
        with pytest.raises(AlreadyServingError):
            server.serve_forever()
        assert ask(address) == b"ping"


def test_an_early_shutdown_counts() -> None:
    server = TCPServer(LOOPBACK, Echo)
    server.shutdown()
    with server.running():
        pass
    assert server.state is ServerState.STOPPED


@pytest.mark.parametrize("method", ["shutdown", "stop", "server_close"])
def test_the_block_may_end_it(method: str) -> None:
    server = TCPServer(LOOPBACK, Echo)
    with server.running() as address:
        assert ask(address) == b"ping"
        getattr(server, method)()
    assert server.state is ServerState.STOPPED


def test_a_handler_that_does_not_end_does_not_hold_the_block() -> None:
    gate = Gate()
    server = TCPServer(LOOPBACK, gate)
    with server.running(grace=0) as address, connect(address):
        assert gate.entered.acquire(timeout=10)
    (connection,) = server.connections
    gate.opened.set()
    for thread in threading.enumerate():
        if thread.name.startswith("TCPServer ("):
            thread.join(10)
    assert list(server.connections) == []
    assert connection.peer is not None


def test_the_poll_interval_is_passed_on() -> None:
    class Server(TCPServer):
        turned = threading.Event()

        def service_actions(self) -> None:
            self.turned.set()

    with Server(LOOPBACK, Echo).running(poll_interval=0.001):
        assert Server.turned.wait(10)


def test_an_address_of_any_kind_names_the_thread() -> None:
    class Server(TCPServer):
        def server_bind(self) -> None:
            super().server_bind()
            self.server_address: Any = object()

    with Server(LOOPBACK, Echo).running() as address:
        assert type(address) is object


# -- the new attributes -------------------------------------------------------------------------


def test_refusals_are_counted_by_their_reason() -> None:
    class Refuses(TCPServer):
        def verify_request(self, request: Any, client_address: Any) -> bool:
            return False

    server = Refuses(LOOPBACK, Echo)
    assert server.refusals == {}
    with server.running() as address:
        for _ in range(2):
            assert ask(address, b"") == b""
    assert server.refusals == {"verify_request": 2}


def test_without_tls_there_is_nothing_to_reload() -> None:
    with TCPServer(LOOPBACK, Echo) as server, pytest.raises(TLSConfigError, match="nothing to"):
        server.reload_tls()


def test_a_program_may_end_the_loop_by_the_old_flag() -> None:
    class Ends(TCPServer):
        def finish_request(self, request: Any, client_address: Any) -> None:
            self._BaseServer__shutdown_request = True

    with Ends(LOOPBACK, Echo) as server:
        thread = Background(server.serve_forever)
        assert ask(server.server_address, b"") == b""
        thread.result()
        assert server._BaseServer__shutdown_request is False


def test_a_subscription_may_be_ended() -> None:
    server, recorder = TCPServer(LOOPBACK, Echo), EventRecorder()
    end = server.subscribe(recorder)
    with server.running() as address:
        assert ask(address) == b"ping"
        recorder.wait_for(Finished)
        end()
    assert recorder.names() == ["Serving", "Accepted", "Opened", "Finished"]
