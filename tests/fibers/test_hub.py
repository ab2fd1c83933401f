"""The hub: fibers park, wake, end and are killed, in spite of threads and signals."""

from __future__ import annotations

import contextvars
import gc
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

import greenlet
import pytest

from everserve.errors import HubError
from everserve.fibers.exits import FiberExit
from everserve.fibers.sync import Event, sleep


def test_fibers_run_in_the_order_of_their_spawning(hub: Any) -> None:
    order: list[int] = []
    for number in range(5):
        hub.spawn(order.append, number)
    hub.turn(0)
    assert order == [0, 1, 2, 3, 4]
    assert hub.fibers == 0


def test_a_parked_fiber_resumes_when_woken(hub: Any) -> None:
    seen: list[Any] = []
    fiber = hub.spawn(lambda: seen.append(hub.park()))
    hub.turn(0)
    assert fiber.parked
    assert not fiber.dead
    fiber.wake()
    hub.turn(0)
    assert seen == [True]
    assert fiber.dead


def test_a_park_ends_at_its_time(run: Any, hub: Any) -> None:
    assert run(hub.park, 0.01) is False


def test_a_later_limit_replaces_an_earlier_one(run: Any, hub: Any) -> None:
    def twice() -> list[bool]:
        hub.call_at(time.monotonic(), me.wake)
        first = hub.park(30)
        return [first, hub.park(0.01)]

    me: Any = None

    def remember() -> list[bool]:
        nonlocal me
        me = hub.running
        return twice()

    assert run(remember) == [True, False]


def test_timers_fire_in_the_order_of_their_times(hub: Any) -> None:
    now = time.monotonic()
    order: list[int] = []
    timers = [hub.call_at(now + 0.0001 * n, lambda n=n: order.append(n)) for n in range(50, 0, -1)]
    for timer in timers[::3]:
        timer.cancel()
    kept = sorted(n for index, n in enumerate(range(50, 0, -1)) if index % 3)
    while len(order) < len(kept):
        hub.turn(1)
    assert order == kept


def test_cancelled_timers_leave_nothing(hub: Any) -> None:
    for _ in range(1000):
        hub.call_at(time.monotonic() + 60, lambda: None).cancel()
    begin = time.monotonic()
    hub.turn(0)
    assert time.monotonic() - begin < 30


def test_kill_raises_inside_and_runs_the_finally_blocks(hub: Any) -> None:
    seen: list[str] = []

    def victim() -> None:
        try:
            hub.park()
        except FiberExit:
            seen.append("exit")
            raise
        finally:
            seen.append("finally")

    fiber = hub.spawn(victim)
    hub.turn(0)
    fiber.kill()
    hub.turn(0)
    assert seen == ["exit", "finally"]
    assert fiber.dead
    fiber.kill()


def test_kill_with_an_error_reports_it(hub: Any, errors: list[BaseException]) -> None:
    fiber = hub.spawn(hub.park)
    hub.turn(0)
    fiber.kill(ZeroDivisionError("chosen"))
    hub.turn(0)
    assert [str(error) for error in errors] == ["chosen"]
    errors.clear()


def test_a_fiber_killed_before_it_begins_never_begins(hub: Any) -> None:
    ran: list[int] = []
    fiber = hub.spawn(ran.append, 1)
    fiber.kill()
    hub.turn(0)
    assert fiber.dead
    assert not ran
    assert hub.fibers == 0


def test_a_fiber_that_kills_itself_ends_there(run: Any, hub: Any) -> None:
    seen: list[int] = []

    def kills_itself() -> None:
        seen.append(1)
        hub.running.kill()
        seen.append(2)

    fiber = hub.spawn(kills_itself)
    assert fiber.join(5)
    assert seen == [1]


def test_errors_of_fibers_are_reported(hub: Any, errors: list[BaseException]) -> None:
    hub.spawn(lambda: 1 / 0)
    hub.turn(0)
    assert isinstance(errors.pop(), ZeroDivisionError)


def test_without_on_error_an_error_goes_to_the_unraisable_hook(
    parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", lambda args: reported.append(args.exc_type))
    hub = parts.Hub()
    hub.spawn(lambda: 1 / 0)
    hub.turn(0)
    hub.close()
    assert reported == [ZeroDivisionError]


def test_an_exit_ends_its_fiber_only(hub: Any) -> None:
    ended = hub.spawn(sys.exit, 3)
    other = hub.spawn(sleep, 0.001)
    assert ended.join(20)
    assert other.join(20)


def test_keyboard_interrupt_in_a_fiber_ends_the_turn_and_no_other_fiber(hub: Any) -> None:
    seen: list[int] = []

    def interrupted() -> None:
        raise KeyboardInterrupt

    hub.spawn(interrupted)
    other = hub.spawn(seen.append, 1)
    with pytest.raises(KeyboardInterrupt):
        hub.turn(0)
    hub.turn(0)
    assert seen == [1]
    assert other.dead


def test_keyboard_interrupt_in_the_wait_does_no_damage(hub: Any) -> None:
    fiber = hub.spawn(hub.park)
    hub.turn(0)

    def interrupt() -> None:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Timer(0.05, interrupt)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            hub.turn(20)
    finally:
        signal.signal(signal.SIGINT, previous)
        thread.join()
    fiber.wake()
    hub.turn(0)
    assert fiber.dead


def test_a_signal_handler_may_wake_the_hub(hub: Any) -> None:
    previous = signal.signal(signal.SIGUSR1, lambda *_: hub.wake())
    sender = threading.Timer(
        0.05, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
    )
    try:
        sender.start()
        hub.turn(30)
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, previous)


def test_a_wake_up_during_the_receipt_of_another_is_not_lost(hub: Any, parts: Any) -> None:
    if parts.name == "native":
        pytest.skip("no other thread runs while the compiled loop receives a wake-up")
    wakeup = hub.loop._wakeup

    class Cleared:
        def clear(self) -> None:
            hub.wake()  # as another thread may do at this moment
            wakeup.clear()

        def wake(self) -> None:
            wakeup.wake()

    hub.loop._wakeup = Cleared()
    hub.wake()
    hub.turn(0)
    hub.loop._wakeup = wakeup
    assert not hub.loop._notifying  # else nothing could wake the hub any more
    hub.wake()
    hub.turn(30)  # less than the time limit of a test
    assert hub.loop.notified


def test_a_closed_hub_keeps_no_greenlet_of_its_thread(parts: Any) -> None:
    """The collector of another thread would free it after that thread has ended, and crash."""
    hub = parts.Hub()
    hub.spawn(int)
    hub.turn(0)
    assert has_greenlet(hub)
    hub.close()
    assert not has_greenlet(hub)


def has_greenlet(hub: Any) -> bool:
    kept = [*gc.get_referents(hub), *getattr(hub, "__dict__", {}).values()]
    return any(isinstance(thing, greenlet.greenlet) for thing in kept)


def test_other_threads_spawn_wake_and_kill(hub: Any) -> None:
    seen: list[str] = []

    def victim() -> None:
        try:
            hub.park()
        finally:
            seen.append("killed")

    hub.turn(0)
    fiber = hub.spawn(victim)
    hub.turn(0)

    def outside() -> None:
        hub.spawn(seen.append, "spawned").join(10)
        fiber.kill()
        seen.append(f"dead: {fiber.join(10)}")
        hub.wake()

    thread = threading.Thread(target=outside)
    thread.start()
    while len(seen) < 3:
        hub.turn(10)
    thread.join()
    assert seen == ["spawned", "killed", "dead: True"]


def test_a_reader_is_called_while_there_is_something(hub: Any) -> None:
    ours, peer = socket.socketpair()
    calls: list[int] = []
    with ours, peer:
        hub.add_reader(ours.fileno(), lambda: calls.append(1))
        hub.turn(0)
        assert calls == []
        peer.send(b"x")
        hub.turn(5)
        hub.turn(5)
        assert calls == [1, 1]
        ours.recv(1)
        hub.turn(0)
        assert calls == [1, 1]
        assert hub.remove_reader(ours.fileno())
        assert not hub.remove_reader(ours.fileno())
        peer.send(b"x")
        hub.turn(0)
        assert calls == [1, 1]


def test_an_error_of_a_reader_is_raised_by_the_turn(hub: Any) -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        hub.add_reader(ours.fileno(), lambda: 1 / 0)
        peer.send(b"x")
        with pytest.raises(ZeroDivisionError):
            hub.turn(5)
        hub.remove_reader(ours.fileno())


def test_join_waits_in_a_fiber_and_in_the_hub(hub: Any, run: Any) -> None:
    def waits() -> bool:
        child = hub.spawn(sleep, 0.01)
        return bool(child.join())

    assert run(waits) is True
    stays = hub.spawn(hub.park)
    assert stays.join(0.01) is False
    assert run(lambda: stays.join(0.01)) is False


def test_a_fiber_cannot_join_itself(parts: Any, run: Any) -> None:
    with pytest.raises(HubError, match="its own end"):
        run(lambda: parts.current().join(0.001))


def test_turn_inside_a_fiber_is_refused(run: Any, hub: Any) -> None:
    with pytest.raises(HubError, match="inside a fiber"):
        run(hub.turn, 0)
    with pytest.raises(HubError, match="own hub"):
        run(hub.close)


def test_park_outside_of_a_fiber_is_refused(hub: Any) -> None:
    with pytest.raises(HubError, match="only a fiber"):
        hub.park()


def test_close_ends_the_fibers_that_are_left(parts: Any) -> None:
    hub = parts.Hub()
    ended: list[int] = []

    def stubborn() -> None:
        for _ in range(3):
            try:
                hub.park()
            except FiberExit:
                ended.append(1)

    for _ in range(10):
        hub.spawn(stubborn)
    hub.turn(0)
    before = len(os.listdir("/proc/self/fd"))
    hub.close()
    assert len(ended) == 30
    assert hub.fibers == 0
    assert hub.closed
    assert len(os.listdir("/proc/self/fd")) < before
    hub.close()
    with pytest.raises(HubError, match="closed"):
        hub.spawn(print)
    with pytest.raises(HubError, match="closed"):
        hub.turn(0)


def test_each_fiber_has_its_own_context(hub: Any) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []

    def visit(name: str) -> None:
        seen.append(variable.get())
        variable.set(name)
        hub.yield_turn()
        seen.append(variable.get())

    variable.set("outside")
    for name in ("a", "b"):
        hub.spawn(visit, name)
    while hub.fibers:
        hub.turn(0)
    hub.spawn(visit, "again")
    while hub.fibers:
        hub.turn(0)
    assert seen == ["outside", "outside", "a", "b", "outside", "again"]


def test_an_exception_that_is_handled_belongs_to_its_fiber(hub: Any) -> None:
    seen: list[Any] = []

    def handles(kind: type[Exception]) -> None:
        try:
            raise kind
        except Exception:
            hub.yield_turn()
            seen.append(sys.exc_info()[0])

    hub.spawn(handles, KeyError)
    hub.spawn(handles, ValueError)
    while hub.fibers:
        hub.turn(0)
    assert seen == [KeyError, ValueError]


def test_many_fibers_come_and_go(hub: Any) -> None:
    ended: list[int] = []
    event = Event()

    def visit(number: int) -> None:
        if number % 3:
            event.wait()
        ended.append(number)

    for number in range(2000):
        hub.spawn(visit, number)
    hub.turn(0)
    hub.spawn(event.set)
    while hub.fibers:
        hub.turn(1)
    assert sorted(ended) == list(range(2000))


def test_a_hub_moves_to_another_thread_while_it_is_empty(parts: Any) -> None:
    hub = parts.Hub()
    hub.turn(0)
    seen: list[int] = []

    def elsewhere() -> None:
        hub.spawn(seen.append, threading.get_ident())
        hub.turn(0)
        hub.turn(0)
        hub.spawn(hub.park)
        hub.turn(0)
        hub.close()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(seen) == 1
    assert hub.closed


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_of_fork_leaves_the_parents_hub_alone(hub: Any, pair: Any, run: Any) -> None:
    ours, peer = pair

    def forks() -> bytes:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                ours.sendall(b"child")
                if hub.closed:
                    code = 0
            finally:
                os._exit(code)
        _pid, status = os.waitpid(child, 0)
        assert status == 0
        sleep(0.001)
        return bytes(ours.recv(100))

    peer.sendall(b"parent")
    assert run(forks) == b"parent"
    assert peer.recv(5, socket.MSG_WAITALL) == b"child"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_that_returns_from_its_fiber_cannot_continue(hub: Any) -> None:
    children: list[int] = []
    hub.spawn(lambda: children.append(os.fork()))
    others: list[int] = []
    hub.spawn(others.append, 1)
    code = 1
    try:
        hub.turn(0)
        hub.turn(0)
    except HubError:
        code = 0
    finally:
        if children == [0]:
            os._exit(0 if code == 0 and not others else 1)
    assert os.waitpid(children[0], 0)[1] == 0
    assert others == [1]


def test_yielding_lets_every_other_fiber_run(hub: Any) -> None:
    order: list[str] = []

    def talk(name: str) -> None:
        for _ in range(3):
            order.append(name)
            hub.yield_turn()

    hub.spawn(talk, "a")
    hub.spawn(talk, "b")
    while hub.fibers:
        hub.turn(0)
    assert order == ["a", "b"] * 3


def test_await_fd_parks_for_any_descriptor(run: Any, hub: Any) -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        assert run(hub.await_fd, ours.fileno(), False, 0.01) is False
        assert run(hub.await_fd, ours.fileno(), True, 5) is True
        peer.send(b"x")
        assert run(hub.await_fd, ours.fileno(), False, 5) is True


def test_run_stays_until_a_reader_was_called(hub: Any) -> None:
    called: list[int] = []
    ours, peer = socket.socketpair()
    with ours, peer:
        hub.add_reader(ours.fileno(), lambda: called.append(len(ours.recv(10))))
        rounds: list[int] = []

        def fiber() -> None:
            for number in range(5):
                rounds.append(number)
                hub.park(0.001)
            peer.send(b"abc")
            hub.park()

        sleeper = hub.spawn(fiber)
        hub.run()
        hub.remove_reader(ours.fileno())
    assert rounds == [0, 1, 2, 3, 4]
    assert called == [3]
    sleeper.kill()
    hub.turn(0)


def test_run_ends_when_it_is_woken_or_its_time_is_up(hub: Any) -> None:
    begun = time.monotonic()
    hub.run(0.02)
    assert time.monotonic() - begun >= 0.019
    hub.run(0)
    fiber = hub.spawn(lambda: (hub.park(0.001), hub.wake(), hub.park()))
    hub.run()  # until the wake-up
    assert fiber.parked
    seen: list[str] = []
    hub.call_from_thread(seen.append, "call")
    hub.run()
    assert seen == ["call"]
    fiber.kill()
    hub.turn(0)
    hub.call_from_thread(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        hub.run()


def test_run_ends_in_time_though_a_fiber_never_waits(hub: Any) -> None:
    def spin() -> None:
        while not over:
            hub.yield_turn()

    over: list[int] = []
    fiber = hub.spawn(spin)
    hub.run(0.01)
    assert not fiber.dead
    hub.call_at(time.monotonic(), lambda: (over.append(1), hub.wake()))
    hub.run()
    assert fiber.join(20)


@pytest.mark.timeout(method="thread")  # the test uses the alarm itself
def test_a_signal_during_the_wait_is_no_error(hub: Any) -> None:
    """Even if code between the wait and the test of its result changes errno."""
    received: list[int] = []
    handled = threading.Event()

    def interrupt() -> None:
        while not hub.idle:
            sys._getframe()
        hub.loop.call_when_active(lambda: os.path.exists("/nonexistent/file"))  # sets errno
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        handled.wait(0.5)  # without effect if the signal came just before the wait in the kernel
        hub.wake()  # that wait goes on after a signal

    def handle(number: int, _frame: object) -> None:
        received.append(number)
        handled.set()

    former = signal.signal(signal.SIGALRM, handle)
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        while not received:
            hub.turn(20)
    finally:
        thread.join(20)
        signal.signal(signal.SIGALRM, former)
    assert received == [signal.SIGALRM]


def test_closing_lets_a_finally_block_wait(parts: Any) -> None:
    """For a rollback, which may need the loop."""
    ended: list[str] = []
    hub = parts.Hub()

    def handler() -> None:
        try:
            hub.park()
        finally:
            hub.park(0.005)
            ended.append("rolled back")

    hub.spawn(handler)
    hub.turn(0)
    hub.close()
    assert ended == ["rolled back"]
