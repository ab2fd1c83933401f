"""``server.acceptloop``: what it waits for, and for how long."""

from __future__ import annotations

import errno
import selectors
import socket
import threading
from typing import Any

import pytest
from tests.clients import LIMIT, Background, ask, connect, serving
from tests.scenes import LOOPBACK, Echo, Heard

from everserve.events import BackedOff, Finished
from everserve.server.acceptloop import Port
from everserve.server.tcp import TCPServer
from everserve.sockets.accepting import BackOff


def is_listener(key: selectors.SelectorKey) -> bool:
    return getattr(key.data, "__func__", None) is Port.note_ready


class Waits:
    """The selector of the accept loop, with a record of what it waited for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.listening: list[bool] = []
        self.timeouts: list[float | None] = []
        self.begun = threading.Condition()
        waits, original = self, selectors.PollSelector.select

        def select(self: selectors.PollSelector, timeout: float | None = None) -> Any:
            with waits.begun:
                waits.timeouts.append(timeout)
                waits.listening.append(any(is_listener(key) for key in self.get_map().values()))
                waits.begun.notify_all()
            return original(self, timeout)

        monkeypatch.setattr(selectors.PollSelector, "select", select)

    def until(self, *listening: bool) -> None:
        """Wait until the last waits were with and without the listener, as given."""
        with self.begun:
            assert self.begun.wait_for(
                lambda: self.listening[-len(listening) :] == list(listening), LIMIT
            ), self.listening


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    return Waits(monkeypatch)


def test_it_waits_for_the_listener_without_end(waits: Waits) -> None:
    with serving(TCPServer(LOOPBACK, Echo)):
        waits.until(True)
    assert waits.timeouts == [None]


def test_while_suspended_it_does_not_look_at_the_listener(waits: Waits) -> None:
    server = TCPServer(LOOPBACK, Echo)
    with serving(server) as address:
        waits.until(True)
        server.suspend()
        waits.until(True, False)
        with connect(address) as client:
            client.sendall(b"ping")
            server.resume()
            assert client.recv(100) == b"ping"
    assert set(waits.timeouts) == {None}


def test_suspended_before_serving(waits: Waits) -> None:
    server = TCPServer(LOOPBACK, Echo)
    server.suspend()
    with serving(server) as address:
        waits.until(False)
        with connect(address) as client:
            client.sendall(b"ping")
            server.resume()
            assert client.recv(100) == b"ping"


def test_a_client_that_comes_in_the_moment_of_a_suspend_waits(
    waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = TCPServer(LOOPBACK, Echo)
    recorded = selectors.PollSelector.select

    def suspend_meanwhile(self: selectors.PollSelector, timeout: float | None = None) -> Any:
        ready = recorded(self, timeout)
        if any(is_listener(key) for key, _ in ready):
            monkeypatch.setattr(selectors.PollSelector, "select", recorded)
            server.suspend()
        return ready

    monkeypatch.setattr(selectors.PollSelector, "select", suspend_meanwhile)
    with serving(server) as address, connect(address) as client:
        client.sendall(b"ping")
        waits.until(False)
        assert len(server.connections) == server._everserve.connections.accepted == 0
        server.resume()
        assert client.recv(100) == b"ping"


def test_without_room_the_next_waits_in_the_kernel(waits: Waits) -> None:
    server = TCPServer(LOOPBACK, Echo)
    server.max_connections = 0
    with serving(server) as address:
        waits.until(False)
        with connect(address) as client:
            client.sendall(b"ping")
            server.max_connections = None
            assert client.recv(100) == b"ping"


def test_a_back_off_is_waited_for_and_reported(waits: Waits) -> None:
    class Exhausted(TCPServer):
        errors = [OSError(errno.EMFILE, "Too many open files")] * 3

        def get_request(self) -> Any:
            if self.errors:
                raise self.errors.pop()
            return super().get_request()

    server, heard = Exhausted(LOOPBACK, Echo), Heard()
    server.subscribe(heard)
    with serving(server) as address:
        assert ask(address) == b"ping"
        heard.wait_for(Finished)
    pauses = [timeout for timeout in waits.timeouts if timeout is not None]
    assert pauses
    assert all(0 < pause <= 0.02 for pause in pauses)
    (backed_off,) = heard.of(BackedOff)
    assert (backed_off.error.errno, backed_off.delay, backed_off.failures) == (
        errno.EMFILE,
        0.005,
        1,
    )


def test_the_poll_interval_is_shorter_than_a_long_back_off(waits: Waits) -> None:
    class Exhausted(TCPServer):
        turns = 0

        def get_request(self) -> Any:
            raise OSError(errno.EMFILE, "Too many open files")

        def service_actions(self) -> None:
            self.turns += 1
            if self.turns == 3:
                self._everserve.life.shutdown_requested = True

    server = Exhausted(LOOPBACK, Echo)
    server._everserve.acceptor.back_off = BackOff(
        lambda: 0.0
    )  # time stands still: it is never over
    with server, connect(server.server_address):
        server.serve_forever(0.001)
    assert waits.timeouts == [0.001, 0.001, 0.001]
    assert waits.listening == [True, False, False]


def test_service_actions_run_after_each_request_too() -> None:
    class Serviced(TCPServer):
        turns = 0

        def service_actions(self) -> None:
            self.turns += 1

    server, heard = Serviced(LOOPBACK, Echo), Heard()
    server.subscribe(heard)
    with serving(server) as address:
        for _ in range(3):
            ask(address)
        heard.wait_for(Finished, 3)
    assert server.turns >= 2


# -- handle_request ----------------------------------------------------------------------------


def test_handle_request_handles_one() -> None:
    with TCPServer(LOOPBACK, Echo) as server:
        with connect(server.server_address) as client, connect(server.server_address) as second:
            client.sendall(b"ping")
            server.handle_request()
            assert client.recv(100) == b"ping"
            second.setblocking(False)
            with pytest.raises(BlockingIOError):
                second.recv(100)


@pytest.mark.parametrize("by", ["timeout", "socket"])
def test_handle_request_times_out(by: str) -> None:
    class Server(TCPServer):
        timed_out = 0

        def handle_timeout(self) -> None:
            self.timed_out += 1

    with Server(LOOPBACK, Echo) as server:
        server.timeout = 0.01 if by == "timeout" else 3600
        server.socket.settimeout(0.01 if by == "socket" else None)
        server.handle_request()
        assert server.timed_out == 1
        server.timeout = 0
        server.handle_request()
        assert server.timed_out == 2


def test_a_wake_up_does_not_end_handle_request() -> None:
    with TCPServer(LOOPBACK, Echo) as server:
        server._everserve.life.wakeup()
        server._everserve.life.wake()
        thread = Background(server.handle_request)
        assert ask(server.server_address) == b"ping"
        thread.result()


def test_a_shutdown_does_not_concern_handle_request() -> None:
    with TCPServer(LOOPBACK, Echo) as server:
        server.shutdown()
        thread = Background(server.handle_request)
        assert ask(server.server_address) == b"ping"
        thread.result()


# -- drain -------------------------------------------------------------------------------------


def test_a_drain_waits_for_room_until_the_grace_is_over() -> None:
    server = TCPServer(LOOPBACK, Echo)
    server.max_connections = 0
    with server.running() as address, connect(address) as client:
        report = server.stop(0.02)
        assert report.finished == 0
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_drain_serves_no_more_than_the_backlog() -> None:
    class Endless(TCPServer):
        request_queue_size = 2
        handled = 0

        def get_request(self) -> Any:
            ours, peers = socket.socketpair()
            peers.close()
            return ours, "peer"

        def finish_request(self, request: Any, client_address: Any) -> None:
            self.handled += 1
            if self.handled == 1:
                self.stop(3600)

    server = Endless(LOOPBACK, Echo)
    with connect(server.server_address):
        Background(server.serve_forever).result()
    assert server.handled == 1 + 3  # the one that stopped it, then one more than listen() was given


def test_with_no_grace_nothing_is_drained() -> None:
    class Stops(TCPServer):
        handled = 0

        def finish_request(self, request: Any, client_address: Any) -> None:
            self.handled += 1
            self.stop(0)

    server = Stops(LOOPBACK, Echo)
    clients = [connect(server.server_address) for _ in range(3)]
    server.serve_forever()
    assert server.handled == 1
    for client in clients:
        client.close()
