"""``server.acceptloop``: the descriptors and the times of its waits; alone, and in servers."""

from __future__ import annotations

import errno
import selectors
import socket
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from tests.clients import LIMIT, Background, ask, connect, serving
from tests.parts import NotedHooks, Parts
from tests.scenes import LOOPBACK, Echo, EventRecorder

from everserve.combos import ThreadingTCPServer
from everserve.concurrency.strategy import Order, Strategy, StrategyParts
from everserve.events import BackedOff, Finished, Opened
from everserve.lifecycle.state import ServerState
from everserve.server.acceptloop import AcceptLoop, Port
from everserve.server.tcp import TCPServer
from everserve.sockets.accepting import BackOff


def is_listener(key: selectors.SelectorKey) -> bool:
    return getattr(key.data, "__func__", None) is Port.note_ready


# -- alone: no server, and no waiting ----------------------------------------------------------


class Turns(selectors.BaseSelector):
    """A selector that never waits: the test gives the result of each ``select``.

    ``script`` has a function for each turn: it gets the loop's registered keys and returns the ready
    ones.
    """

    def __init__(self, *script: Callable[[Turns], list[Any]]) -> None:
        self.script = list(script)
        self.keys: dict[Any, selectors.SelectorKey] = {}
        self.timeouts: list[float | None] = []
        self.closed = False

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        assert fileobj not in self.keys
        descriptor = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self.keys[fileobj] = selectors.SelectorKey(fileobj, descriptor, events, data)
        return self.keys[fileobj]

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self.keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[Any]:
        self.timeouts.append(timeout)
        return [(key, key.events) for key in self.script.pop(0)(self)]

    def close(self) -> None:
        self.closed = True

    def get_map(self) -> Any:
        return self.keys


class NotedStrategy(Strategy):
    """Records the loop that it is attached to, and watches the descriptors that a test gives it."""

    attends = True

    def __init__(self, parts: StrategyParts) -> None:
        super().__init__(parts)
        self.callbacks: dict[int, Callable[[], object]] = {}
        self.orders: list[Order] = []
        self.attended = 0
        self.attention = False
        self.is_child = False

    def become_child(self) -> None:
        self.is_child = True

    def watched(self) -> Mapping[int, Callable[[], object]]:
        return self.callbacks

    def attend(self) -> None:
        self.attended += 1

    def needs_attention(self) -> bool:
        return self.attention

    def take_order(self) -> Order | None:
        return self.orders.pop() if self.orders else None


class NotedAcceptor:
    """A fake ``Acceptor``."""

    def __init__(self) -> None:
        self.room = True
        self.delay = 0.0
        self.taken = 0
        self.arrivals = SimpleNamespace(waiting=())

    def can_accept(self) -> bool:
        return self.room

    def pause(self) -> float:
        return self.delay

    def take_many(self, hooks: Any) -> None:
        self.taken += 1


class LonePort:
    """A port and the objects around it, each of which a test may set."""

    def __init__(self, descriptor: int = 4711, **does: Callable[..., Any]) -> None:
        self.parts = Parts(NotedStrategy)
        self.strategy: Any = self.parts.strategy
        self.life = self.parts.life
        self.acceptor: Any = NotedAcceptor()
        self.hooks: Any = NotedHooks(fileno=lambda: descriptor, **does)
        self.obeyed: list[Any] = []
        self.port = Port(
            self.hooks,
            settings=self.parts.settings,
            acceptor=self.acceptor,
            strategy=self.strategy,
            life=self.life,
            obey=self.obeyed.append,
        )
        self.life.begin()

    def stop(self, deadline: float) -> None:
        """A stop of which only the times are used."""
        self.life.begin_stop(
            SimpleNamespace(report=None, deadline=deadline, is_over=lambda: monotonic() >= deadline)
        )
        self.life.move(ServerState.DRAINING)


def request_waits(turns: Turns) -> list[Any]:
    return [key for key in turns.keys.values() if is_listener(key)]


def nothing(turns: Turns) -> list[Any]:
    return []


def ending(*lones: LonePort) -> Callable[[Turns], list[Any]]:
    """A turn in which a shutdown is requested."""

    def turn(turns: Turns) -> list[Any]:
        for lone in lones:
            lone.life.shutdown_requested = True
        return []

    return turn


def run(turns: Turns, *lones: LonePort, poll_interval: float = 3600.0) -> list[Port]:
    """Run a loop to its end. Returns the ports in the order of their end."""
    retired: list[Port] = []
    with AcceptLoop([lone.port for lone in lones], turns).open() as loop:
        loop.run(poll_interval, retired.append)
    assert turns.closed
    return retired


def test_a_request_is_handed_to_the_acceptor() -> None:
    lone = LonePort()
    turns = Turns(request_waits, nothing, ending(lone))
    assert run(turns, lone) == [lone.port]
    assert lone.acceptor.taken == 1
    assert turns.timeouts == [None] * 3


def test_it_sleeps_while_nothing_may_be_accepted() -> None:
    lone = LonePort()
    lone.acceptor.room = False
    lone.acceptor.delay = 0.25

    def room_again(turns: Turns) -> list[Any]:
        assert request_waits(turns) == []
        lone.acceptor.room, lone.acceptor.delay = True, 0.0
        return []

    turns = Turns(room_again, request_waits, ending(lone))
    run(turns, lone)
    assert turns.timeouts == [0.25, None, None]
    assert lone.acceptor.taken == 1


def test_a_pause_that_ends_while_the_loop_looks_is_not_waited_for_without_end() -> None:
    """The clock reaches the end of the back-off between any two readings of it."""
    for readings in range(1, 6):
        lone = LonePort()
        times = iter([0.0, *[BackOff.first / 2] * readings])
        back_off = BackOff(lambda times=times: next(times, BackOff.first))
        back_off.fail()
        lone.acceptor.can_accept = lambda back_off=back_off: not back_off.remaining()
        lone.acceptor.pause = back_off.remaining
        seen: list[bool] = []

        def look(turns: Turns, seen: list[bool] = seen) -> list[Any]:
            seen.append(bool(request_waits(turns)) or turns.timeouts[-1] is not None)
            return []

        run(Turns(look, look, ending(lone)), lone)
        assert seen == [True, True]


def test_a_drain_goes_on_after_a_back_off() -> None:
    lone = LonePort()
    lone.acceptor.room, lone.acceptor.delay = False, 0.25
    lone.stop(monotonic() + 3600)

    def room_again(turns: Turns) -> list[Any]:
        lone.acceptor.room, lone.acceptor.delay = True, 0.0
        return []

    turns = Turns(room_again, request_waits, nothing)
    assert run(turns, lone) == [lone.port]
    assert turns.timeouts == [0.25, 0.0, 0.0]


def test_the_settings_are_read_after_each_wait() -> None:
    lone = LonePort()
    read: list[int] = []
    lone.acceptor.take_many = lambda hooks: read.append(lone.parts.settings.readings)
    run(Turns(request_waits, nothing, request_waits, ending(lone)), lone)
    assert read == [1, 3]


def test_one_loop_waits_for_many_listeners() -> None:
    one, other = LonePort(1), LonePort(2)
    other.acceptor.delay = 0.5

    def both(turns: Turns) -> list[Any]:
        assert {key.fd for key in request_waits(turns)} == {1, 2}
        return request_waits(turns)

    def the_other(turns: Turns) -> list[Any]:
        return [key for key in request_waits(turns) if key.fd == 2]

    turns = Turns(both, the_other, ending(one), the_other, ending(other))
    assert run(turns, one, other) == [one.port, other.port]
    assert (one.acceptor.taken, other.acceptor.taken) == (1, 3)
    assert turns.timeouts == [0.5] * 5


def test_a_port_that_is_over_is_no_longer_waited_for() -> None:
    one, other = LonePort(1), LonePort(2)

    def only_the_other(turns: Turns) -> list[Any]:
        assert [key.fd for key in request_waits(turns)] == [2]
        return ending(other)(turns)

    run(Turns(ending(one), only_the_other), one, other)


def test_service_actions_run_between_single_requests() -> None:
    lone = LonePort()
    lone.hooks.service_actions = lambda: lone.hooks.calls.append("service_actions")
    turns = Turns(request_waits, nothing, ending(lone))
    run(turns, lone, poll_interval=0.125)
    assert turns.timeouts == [0.125] * 3
    assert lone.acceptor.taken == 0
    assert lone.hooks.calls.count("_handle_request_noblock") == 1
    assert lone.hooks.calls.count("service_actions") == 2  # not once the run must end


def test_a_strategy_is_attended_and_its_orders_are_executed() -> None:
    lone = LonePort()
    lone.strategy.attention = True
    lone.strategy.orders.append(Order(2.5))
    turns = Turns(nothing, nothing, ending(lone))
    run(turns, lone, poll_interval=0.125)
    assert lone.obeyed == [Order(2.5)]
    assert lone.strategy.attended == 2
    assert turns.timeouts == [0.125] * 3


def test_the_descriptors_of_a_strategy() -> None:
    lone, called = LonePort(), []
    lone.strategy.callbacks[33] = lambda: called.append(33)

    def watches_another(turns: Turns) -> list[Any]:
        lone.strategy.callbacks[34] = lambda: (called.append(34), forget())
        lone.strategy._loop.watch(34)
        return [turns.keys[33]]

    def forget() -> None:
        del lone.strategy.callbacks[33]
        lone.strategy._loop.unwatch(33)

    def both(turns: Turns) -> list[Any]:
        return [turns.keys[34], turns.keys[33]]  # the first ends the wait for the second

    run(Turns(watches_another, both, ending(lone)), lone)
    assert called == [33, 34]
    assert lone.strategy._loop is None


def test_in_a_child_of_fork_the_parent_alone_serves() -> None:
    lone = LonePort()
    AcceptLoop([lone.port], Turns()).leave_to_parent()
    assert lone.strategy.is_child


def test_a_stop_drains_only_waiting_connections() -> None:
    lone = LonePort()

    def stops(turns: Turns) -> list[Any]:
        lone.stop(monotonic() + 3600)
        return []

    turns = Turns(stops, request_waits, request_waits, nothing)
    assert run(turns, lone) == [lone.port]
    assert lone.hooks.calls.count("_handle_request_noblock") == 2
    assert turns.timeouts == [None, 0.0, 0.0, 0.0]


def test_a_stop_takes_no_more_than_the_backlog() -> None:
    lone = LonePort()
    lone.stop(monotonic() + 3600)
    run(Turns(*[request_waits] * 6), lone)
    assert lone.hooks.calls.count("_handle_request_noblock") == NotedHooks.request_queue_size + 1


def test_a_stop_without_time_left_drains_nothing() -> None:
    lone = LonePort()
    lone.stop(monotonic())
    assert run(Turns(), lone) == [lone.port]
    assert lone.hooks.calls == []


def test_a_drain_without_room_ends_at_the_deadline() -> None:
    lone = LonePort()
    lone.acceptor.room = False
    lone.stop(monotonic() + 3600)

    def until(turns: Turns) -> list[Any]:
        lone.life.stop.deadline = monotonic()
        lone.life.stop.is_over = lambda: True
        return []

    turns = Turns(until)
    run(turns, lone)
    (timeout,) = turns.timeouts
    assert timeout is not None
    assert 3500 < timeout <= 3600


def test_one_turn_takes_one_request() -> None:
    lone = LonePort()
    lone.life.end()
    with AcceptLoop([lone.port], Turns(request_waits)).open() as loop:
        assert loop.turn(None)
    assert lone.hooks.calls == ["_handle_request_noblock"]


def test_one_turn_ends_at_its_deadline() -> None:
    lone = LonePort()
    lone.life.end()
    turns = Turns(nothing)
    with AcceptLoop([lone.port], turns).open() as loop:
        assert not loop.turn(monotonic() - 1)
    assert turns.timeouts == [0.0]


def test_one_turn_ends_with_a_stop_that_begins_meanwhile() -> None:
    lone = LonePort()
    lone.life.end()

    def stops(turns: Turns) -> list[Any]:
        lone.stop(monotonic())
        return []

    with AcceptLoop([lone.port], Turns(stops)).open() as loop:
        assert loop.turn(None)
    assert lone.hooks.calls == []


# -- in a server -------------------------------------------------------------------------------


class Waits:
    """The selector of the accept loop, with a record of its waits."""

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


def test_while_suspended_it_does_not_wait_for_the_listener(waits: Waits) -> None:
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


def test_a_client_that_connects_at_the_moment_of_a_suspend_waits(
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
    server = ThreadingTCPServer(LOOPBACK, Echo)
    server.max_connections = 1
    with serving(server) as address, connect(address):
        waits.until(True, False)
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

    server, recorder = Exhausted(LOOPBACK, Echo), EventRecorder()
    server.subscribe(recorder)
    with serving(server) as address:
        assert ask(address) == b"ping"
        recorder.wait_for(Finished)
    pauses = [timeout for timeout in waits.timeouts if timeout is not None]
    assert pauses
    assert all(0 < pause <= 0.02 for pause in pauses)
    (backed_off,) = recorder.of(BackedOff)
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

    server, recorder = Serviced(LOOPBACK, Echo), EventRecorder()
    server.subscribe(recorder)
    with serving(server) as address:
        for _ in range(3):
            ask(address)
        recorder.wait_for(Finished, 3)
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


def test_handle_request_takes_a_limit_as_it_is_now() -> None:
    with TCPServer(LOOPBACK, Echo) as server:
        other = threading.Event()
        server.max_connections = 1
        server._everserve.connections.add(other, "peer")
        server._everserve.settings.read()
        server.max_connections = None
        thread = Background(server.handle_request)
        assert ask(server.server_address) == b"ping"
        thread.result()


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
    server, recorder = ThreadingTCPServer(LOOPBACK, Echo), EventRecorder()
    server.max_connections = 1
    server.subscribe(recorder)
    with server.running() as address, connect(address):
        recorder.wait_for(Opened)
        with connect(address) as client:
            report = server.stop(0.02)
            assert (report.finished, len(report.cut)) == (0, 1)
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
    assert server.handled == 1 + 3  # the one that stopped it, then one more than the backlog


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


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.ENOSPC])
@pytest.mark.parametrize("server_class", [TCPServer, ThreadingTCPServer])
def test_it_goes_on_where_the_system_cannot_wait(
    server_class: type[TCPServer], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError(code, "")] * 2
    select = selectors.PollSelector.select

    def fail(self: Any, timeout: float | None = None) -> Any:
        if failures:
            raise failures.pop()
        return select(self, timeout)

    monkeypatch.setattr(selectors.PollSelector, "select", fail)
    with serving(server_class(LOOPBACK, Echo)) as address:
        assert ask(address) == b"ping"
    assert not failures


def test_another_error_of_the_wait_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, timeout: float | None = None) -> Any:
        raise OSError(errno.EBADF, "")

    monkeypatch.setattr(selectors.PollSelector, "select", fail)
    with TCPServer(LOOPBACK, Echo) as server, pytest.raises(OSError) as raised:
        server.serve_forever()
    assert raised.value.errno == errno.EBADF
