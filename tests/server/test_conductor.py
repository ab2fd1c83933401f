"""``server.conductor``: serve, shut down, stop and suspend, driven without a server."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.clients import Background
from tests.parts import NotedHooks, Parts

from everserve.concurrency.strategy import Order, Strategy
from everserve.errors import AlreadyServingError, ServerClosedError
from everserve.events import Draining, Serving, Stopped
from everserve.lifecycle.state import ServerState
from everserve.server.arrivals import Arrivals
from everserve.server.conductor import Conductor, serve_together
from everserve.sockets.listening import SocketFile


class NotedStrategy(Strategy):
    """Records the calls of a conductor."""

    attends = True

    def __init__(self, parts: Any) -> None:
        super().__init__(parts)
        self.calls: list[Any] = []
        self.relays = False

    def relay(self, grace: float | None) -> bool:
        self.calls.append(("relay", grace))
        return self.relays

    def linger(self) -> None:
        self.calls.append("linger")

    def leave(self) -> None:
        self.calls.append("leave")

    def close(self, *, wait: bool, deadline: Any = None) -> None:
        self.calls.append(("close", wait))


class NotedAcceptor:
    """A fake ``Acceptor``: accepts only what a test gives."""

    listener: Any = None

    def __init__(self) -> None:
        self.arrivals = Arrivals(lambda: None)

    def begin(self, hooks: Any, listener: Any) -> None:
        self.listener = listener

    def end(self) -> None:
        self.listener = None

    def can_accept(self) -> bool:
        return True

    def pause(self) -> float:
        return 0.0

    def take_many(self, hooks: Any) -> None:
        hooks._handle_request_noblock()


class Scene:
    """A conductor, the objects around it, and a listener that ``request()`` makes ready."""

    def __init__(self, **settings: Any) -> None:
        self.parts = Parts(NotedStrategy, **settings)
        self.life, self.strategy = self.parts.life, self.parts.strategy
        self.calls: list[Any] = self.strategy.calls  # type: ignore[attr-defined]
        self.acceptor: Any = NotedAcceptor()
        self.conductor = Conductor(
            settings=self.parts.settings,
            life=self.life,
            connections=self.parts.connections,
            strategy=self.strategy,
            acceptor=self.acceptor,
            emitter=self.parts.emitter,
            watchdog=self.parts.watchdog,
        )
        self.reader, self.writer = socket.socketpair()
        self.hooks: Any = NotedHooks(
            fileno=self.reader.fileno, server_close=self.close, _handle_request_noblock=self.take
        )
        self.on_request: Any = lambda: None

    def request(self) -> None:
        self.writer.send(b"x")

    def take(self) -> bool:
        self.reader.recv(1)
        self.on_request()
        return True

    def close(self) -> None:
        self.conductor.close()
        self.reader.close()
        self.writer.close()

    def serve(self) -> Background:
        """Serve in a thread, until the run is announced."""
        before = self.life.announcements
        thread = Background(self.conductor.serve, self.hooks, 3600.0)
        self.life.notifier.wait_until(
            lambda: self.life.announcements > before or not thread.is_alive()
        )
        return thread


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.close()


# -- serve and shut down -----------------------------------------------------------------------


def test_a_run_from_its_start_to_its_end(scene: Scene) -> None:
    thread = scene.serve()
    assert scene.parts.recorder.events == [Serving("here")]
    assert scene.life.state is ServerState.SERVING
    assert scene.acceptor.listener is not None
    scene.conductor.shutdown()
    thread.result()
    assert scene.life.state is ServerState.READY
    assert scene.acceptor.listener is None
    assert scene.calls == [("relay", None), "leave"]


def test_it_serves_again(scene: Scene) -> None:
    for _ in range(2):
        thread = scene.serve()
        scene.conductor.shutdown()
        thread.result()
    assert scene.parts.recorder.events == [Serving("here")] * 2


def test_an_early_shutdown_counts_once(scene: Scene) -> None:
    scene.conductor.shutdown()
    Background(scene.conductor.serve, scene.hooks, 3600.0).result()
    assert scene.parts.recorder.events == []
    thread = scene.serve()
    assert thread.is_alive()
    scene.conductor.shutdown()
    thread.result()


def test_a_shutdown_in_the_serving_thread_does_not_wait_for_itself(scene: Scene) -> None:
    scene.on_request = scene.conductor.shutdown
    thread = scene.serve()
    scene.request()
    thread.result()


def test_one_run_at_a_time(scene: Scene) -> None:
    thread = scene.serve()
    with pytest.raises(AlreadyServingError):
        scene.conductor.serve(scene.hooks, 3600.0)
    assert thread.is_alive()
    scene.conductor.shutdown()
    thread.result()


def test_a_closed_server_does_not_serve(scene: Scene) -> None:
    scene.close()
    for call in (
        lambda: scene.conductor.serve(scene.hooks, 1.0),
        lambda: scene.conductor.handle_request(scene.hooks),
    ):
        with pytest.raises(ServerClosedError, match="NotedHooks is closed: make a new server"):
            call()


def test_an_exception_ends_the_run_and_all_that_belongs_to_it(scene: Scene) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    scene.on_request = fail
    thread = scene.serve()
    scene.request()
    with pytest.raises(ZeroDivisionError):
        thread.result()
    assert scene.life.session is None
    assert scene.calls == ["leave"]


def test_the_strategy_lingers_for_requests_in_progress(scene: Scene) -> None:
    thread = scene.serve()
    request = threading.Event()
    connection = scene.parts.progress.accepted(request, "peer")
    scene.conductor.shutdown()
    thread.result()
    assert scene.calls == [("relay", None), "linger", "leave"]
    scene.parts.progress.ended(connection)


def test_the_standard_librarys_event_is_cleared_and_set(scene: Scene) -> None:
    event = scene.hooks._BaseServer__is_shut_down = threading.Event()
    event.set()
    thread = scene.serve()
    assert not event.is_set()
    scene.conductor.shutdown()
    assert event.is_set()
    thread.result()


def test_the_order_of_another_process_is_executed(scene: Scene) -> None:
    orders: list[Order] = []
    scene.strategy.take_order = lambda: orders.pop() if orders else None  # type: ignore[method-assign]
    for order, state in ((None, ServerState.READY), (2.5, ServerState.STOPPED)):
        thread = scene.serve()
        orders.append(Order(order))
        scene.life.wake()
        thread.result()
        assert scene.life.state is state
    assert scene.parts.recorder.of(Draining) == [Draining(2.5)]


@pytest.mark.parametrize("grace", [None, 2.5])
def test_in_a_child_the_order_is_left_to_the_parent(scene: Scene, grace: float | None) -> None:
    scene.strategy.relays = True  # type: ignore[attr-defined]
    if grace is None:
        scene.conductor.shutdown()
    else:
        assert scene.conductor.stop(scene.hooks, grace).unfinished == ()
    assert scene.calls == [("relay", grace)]
    assert not scene.life.shutdown_requested
    assert scene.life.stop is None


# -- handle_request ----------------------------------------------------------------------------


def test_one_request_is_handled(scene: Scene) -> None:
    scene.request()
    scene.conductor.handle_request(scene.hooks)
    assert scene.hooks.calls == ["_handle_request_noblock"]


def test_no_request_in_time(scene: Scene) -> None:
    scene.hooks.timeout = 0
    scene.conductor.handle_request(scene.hooks)
    assert scene.hooks.calls == ["handle_timeout"]


# -- stop --------------------------------------------------------------------------------------


def test_a_stop_closes_for_good(scene: Scene) -> None:
    thread = scene.serve()
    report = scene.conductor.stop(scene.hooks, 5.0)
    thread.result()
    assert scene.parts.recorder.events == [Serving("here"), Draining(5.0), Stopped(report)]
    assert scene.hooks.calls == ["server_close"]
    assert scene.life.state is ServerState.STOPPED
    assert scene.conductor.is_draining()
    assert scene.conductor.stop(scene.hooks, 5.0) is report


def test_a_stop_in_the_serving_thread_is_completed_at_the_end_of_the_run(scene: Scene) -> None:
    reports: list[Any] = []
    scene.on_request = lambda: reports.append(scene.conductor.stop(scene.hooks, 5.0))
    thread = scene.serve()
    scene.request()
    thread.result()
    assert len(scene.parts.recorder.of(Stopped)) == 1
    assert scene.life.state is ServerState.STOPPED


def test_another_process_may_drain_it(scene: Scene) -> None:
    assert not scene.conductor.is_draining()
    scene.strategy.is_draining = lambda: True  # type: ignore[method-assign]
    assert scene.conductor.is_draining()


@pytest.mark.parametrize("blocking", [True, False])
def test_closing_waits_for_requests_with_block_on_close(blocking: bool) -> None:
    scene = Scene(block_on_close=blocking)
    scene.conductor.close_strategy()
    assert scene.calls == [("close", blocking)]
    scene.close()


def test_closing_does_not_wait_for_requests_that_a_stop_has_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("everserve.server.stop.LAST_WAIT", 0.0)
    scene = Scene()
    request = threading.Event()
    connection = scene.parts.progress.accepted(request, "peer")
    report = scene.conductor.stop(scene.hooks, 0.0)
    assert report.unfinished == (connection,)
    scene.conductor.close_strategy()
    assert scene.calls[-1] == ("close", False)


def test_a_shutdown_is_for_the_run_that_it_found(scene: Scene) -> None:
    first = scene.serve()
    begun = scene.conductor.begin_shutdown()
    first.result()
    second = scene.serve()  # before the caller of the shutdown has looked again
    scene.conductor.finish_shutdown(begun)
    assert scene.life.state is ServerState.SERVING
    scene.conductor.shutdown()
    second.result()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="Unix sockets")
def test_closing_leaves_the_socket_file_to_the_program(scene: Scene, tmp_path: Any) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as sock:
        scene.conductor.socket_file = SocketFile.bind(sock, str(path), mode=None)
        assert path.exists()
        scene.conductor.close()
        assert path.exists()
        scene.conductor.remove_file()
    assert not path.exists()


# -- several in one thread ---------------------------------------------------------------------


def test_several_are_served_by_one_thread_until_the_last_has_ended() -> None:
    one, other = Scene(), Scene()
    threads: set[int] = set()
    for scene in (one, other):
        scene.on_request = lambda: threads.add(threading.get_ident())
    members = [(scene.conductor, scene.hooks) for scene in (one, other)]
    thread = Background(serve_together, members, 3600.0)
    other.life.notifier.wait_until(lambda: other.life.announcements)
    one.request()
    one.conductor.shutdown()  # after the turn in which the request is taken, or before it
    assert thread.is_alive()
    other.request()
    other.conductor.stop(other.hooks, 5.0)
    thread.result()
    assert one.life.state is ServerState.READY
    assert other.life.state is ServerState.STOPPED
    assert len(threads) == 1
    one.close()


def test_if_one_cannot_begin_the_others_end() -> None:
    one, closed = Scene(), Scene()
    closed.close()
    with pytest.raises(ServerClosedError):
        serve_together([(one.conductor, one.hooks), (closed.conductor, closed.hooks)], 3600.0)
    assert one.life.session is None
    assert one.life.state is ServerState.READY
    one.close()


def test_a_server_that_was_shut_down_before_does_not_serve() -> None:
    one, other = Scene(), Scene()
    one.conductor.shutdown()
    members = [(scene.conductor, scene.hooks) for scene in (one, other)]
    thread = Background(serve_together, members, 3600.0)
    other.life.notifier.wait_until(lambda: other.life.announcements)
    assert one.life.session is None
    other.conductor.shutdown()
    thread.result()
    assert one.parts.recorder.events == []
    one.close()
    other.close()


@pytest.mark.timeout(60, method="thread")  # SIGALRM is its own
def test_a_signal_handler_may_stop_all_of_them() -> None:
    one, other = Scene(), Scene()

    def stop(*_: Any) -> None:
        for scene in (one, other):
            scene.conductor.stop(scene.hooks, 5.0)

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        serve_together([(scene.conductor, scene.hooks) for scene in (one, other)], 3600.0)
    finally:
        signal.signal(signal.SIGALRM, before)
    for scene in (one, other):
        assert scene.life.state is ServerState.STOPPED
        assert len(scene.parts.recorder.of(Stopped)) == 1
