"""Lock, RLock, Condition: between fibers, between threads, and between both."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from everserve.errors import FiberTimeout
from everserve.fibers.exits import FiberExit
from everserve.fibers.locks import Condition, Lock, RLock
from everserve.fibers.sync import Event, sleep
from everserve.fibers.timeouts import Timeout

Run = Callable[..., Any]
LIMIT = 20.0


def finish(hub: Any) -> None:
    while hub.fibers:
        hub.turn(10)


def test_a_lock_is_held_while_its_holder_waits(hub: Any) -> None:
    lock = Lock()
    order: list[str] = []

    def holds(name: str) -> None:
        with lock:
            order.append(f"{name} in")
            sleep(0)
            sleep(0)
            order.append(f"{name} out")

    for name in "abc":
        hub.spawn(holds, name)
    finish(hub)
    assert order == ["a in", "a out", "b in", "b out", "c in", "c out"]
    assert not lock.locked()


def test_a_lock_has_the_methods_of_threading(run: Run) -> None:
    def use() -> None:
        lock = Lock()
        assert lock.acquire(timeout=1)
        assert lock.locked()
        assert "held by" in repr(lock)
        assert not lock.acquire(blocking=False)
        assert not lock.acquire(timeout=0.001)
        with pytest.raises(ValueError, match="non-blocking"):
            lock.acquire(False, 1)
        with pytest.raises(ValueError, match="non-negative"):
            lock.acquire(True, -2)
        lock.release()
        assert "unlocked" in repr(lock)
        with pytest.raises(RuntimeError, match="unlocked"):
            lock.release()

    run(use)
    use()


def test_a_thread_and_a_fiber_share_a_lock(hub: Any) -> None:
    lock, held, free = Lock(), Event(), Event()
    order: list[str] = []

    def thread() -> None:
        with lock:
            held.set()
            free.wait(LIMIT)
            order.append("thread")

    def fiber() -> None:
        held.wait(LIMIT)
        hub.spawn(free.set)  # runs although this fiber waits for the lock
        with lock:
            order.append("fiber")

    outside = threading.Thread(target=thread)
    outside.start()
    hub.spawn(fiber)
    finish(hub)
    outside.join(LIMIT)
    assert order == ["thread", "fiber"]


def test_a_waiter_that_is_killed_leaves_the_lock_to_the_next(hub: Any) -> None:
    lock = Lock()
    got: list[str] = []

    def take(name: str) -> None:
        with lock:
            got.append(name)

    lock.acquire()
    killed, _next = hub.spawn(take, "killed"), hub.spawn(take, "next")
    hub.turn(0)
    lock.release()  # it is passed on to the first one
    killed.kill()
    finish(hub)
    assert got == ["next"]


def test_an_rlock_is_taken_again_by_its_holder_only(hub: Any) -> None:
    lock = RLock()
    order: list[str] = []

    def outer() -> None:
        with lock, lock:
            order.append("in")
            sleep(0)
            sleep(0)
            order.append("out")

    def other() -> None:
        assert not lock.acquire(blocking=False)
        with pytest.raises(RuntimeError, match="un-acquired"):
            lock.release()
        with lock:
            order.append("other")

    hub.spawn(outer)
    hub.spawn(other)
    finish(hub)
    assert order == ["in", "out", "other"]


@pytest.mark.parametrize("kind", [Lock, RLock])
def test_a_condition_passes_items_between_threads_and_fibers(hub: Any, kind: Any) -> None:
    changed = Condition(kind())
    items: list[int] = []
    got: list[int] = []

    def take() -> None:
        with changed:
            assert changed.wait_for(lambda: items, LIMIT)
            got.append(items.pop(0))

    def put() -> None:
        with changed:
            items.extend([1, 2, 3])
            changed.notify_all()

    threads = [threading.Thread(target=take), threading.Thread(target=take)]
    for thread in threads:
        thread.start()
    hub.spawn(take)
    hub.spawn(put)
    finish(hub)
    for thread in threads:
        thread.join(LIMIT)
    assert sorted(got) == [1, 2, 3]


def test_a_condition_wakes_so_many(hub: Any) -> None:
    changed = Condition()
    woken: list[int] = []

    def wait(number: int) -> None:
        with changed:
            changed.wait()
            woken.append(number)

    waiters = [hub.spawn(wait, number) for number in range(4)]
    hub.turn(0)

    def notify() -> None:
        with changed:
            changed.notify(2)

    hub.spawn(notify).join(LIMIT)
    waiters[1].join(LIMIT)
    assert woken == [0, 1]
    for waiter in waiters:
        waiter.kill()
    finish(hub)


def test_a_condition_that_is_not_held_says_so(run: Run) -> None:
    def use() -> None:
        changed = Condition()
        for misuse in (changed.wait, changed.notify, changed.notify_all, changed.release):
            with pytest.raises(RuntimeError, match="un-acquired"):
                misuse()
        assert changed.acquire()
        assert not changed.wait(0.001)
        assert not changed.wait_for(lambda: False, 0.001)
        changed.release()

    run(use)
    use()
    with pytest.raises(TypeError, match=r"everserve\.fibers"):
        Condition(threading.Lock())  # type: ignore[arg-type]


def test_a_notification_of_a_killed_waiter_goes_to_the_next(hub: Any) -> None:
    changed = Condition()
    woken: list[str] = []

    def wait(name: str) -> None:
        with changed:
            changed.wait()
            woken.append(name)

    killed = hub.spawn(wait, "killed")
    hub.spawn(wait, "next")
    hub.turn(0)

    def notify() -> None:
        with changed:
            changed.notify()
            killed.kill()

    hub.spawn(notify)
    finish(hub)
    assert woken == ["next"]


def test_a_fiber_killed_while_it_wants_the_lock_back_does_not_release_it(hub: Any) -> None:
    changed = Condition()
    ends: list[type[BaseException]] = []

    def wait() -> None:
        try:
            with changed:
                changed.wait()
        except BaseException as error:
            ends.append(type(error))

    waiting = hub.spawn(wait)
    hub.turn(0)

    def hold() -> None:
        with changed:
            changed.notify()
            sleep(0)  # it now waits for the lock
            waiting.kill()
            waiting.join(LIMIT)
            assert changed._lock.locked()

    hub.spawn(hold)
    finish(hub)
    assert ends == [FiberExit]


def test_a_timeout_during_a_condition_returns_with_the_lock(run: Run) -> None:
    def use() -> None:
        changed = Condition()
        with changed:
            with pytest.raises(FiberTimeout), Timeout(0.001):
                changed.wait()
            assert changed._lock.locked()

    run(use)
    use()
