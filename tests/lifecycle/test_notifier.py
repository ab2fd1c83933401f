"""``lifecycle.notifier``: threads wait for a change, without a lock and without polling."""

from __future__ import annotations

import signal
import threading
from queue import Empty
from time import monotonic

import pytest
from tests.clients import Background

from everserve.lifecycle.notifier import Notifier


def test_a_condition_that_holds_needs_no_notification() -> None:
    assert Notifier().wait_until(lambda: True) is True


def test_it_checks_again_at_every_notification() -> None:
    notifier = Notifier()
    looks = threading.Semaphore(0)
    asked = 0

    def third_time() -> bool:
        nonlocal asked
        asked += 1
        looks.release()
        return asked == 3

    waiter = Background(notifier.wait_until, third_time)
    for _ in range(2):
        looks.acquire()
        notifier.notify()
    assert waiter.result() is True
    assert asked == 3


def test_every_waiter_is_woken() -> None:
    notifier = Notifier()
    ready = threading.Barrier(4)
    changed = False

    def is_changed() -> bool:
        if not changed:
            ready.wait(10)
        return changed

    waiters = [Background(notifier.wait_until, is_changed) for _ in range(3)]
    ready.wait(10)
    changed = True
    notifier.notify()
    for waiter in waiters:
        assert waiter.result() is True


def test_after_the_deadline_it_is_false() -> None:
    notifier = Notifier()
    assert notifier.wait_until(lambda: False, lambda: monotonic() + 0.0) is False
    end = monotonic() + 0.01
    assert notifier.wait_until(lambda: False, lambda: end) is False
    assert monotonic() >= end


def test_the_deadline_may_be_moved() -> None:
    notifier = Notifier()
    deadline: list[float] = [monotonic() + 3600]
    asked = threading.Event()

    def when() -> float:
        asked.set()
        return deadline[0]

    waiter = Background(notifier.wait_until, lambda: False, when)
    asked.wait(10)
    deadline[0] = monotonic()
    notifier.notify()
    assert waiter.result() is False


def test_no_waiter_is_left_on_the_list() -> None:
    notifier = Notifier()
    notifier.wait_until(lambda: True)
    notifier.wait_until(lambda: False, lambda: monotonic())
    with pytest.raises(ZeroDivisionError):
        notifier.wait_until(lambda: bool(1 / 0))
    assert notifier.waiters == []
    notifier.notify()


@pytest.mark.timeout(60, method="thread")  # SIGALRM is its own
def test_a_signal_handler_may_notify_the_thread_it_interrupts() -> None:
    notifier = Notifier()
    changed = False

    def change(*_: object) -> None:
        nonlocal changed
        changed = True
        notifier.notify()

    before = signal.signal(signal.SIGALRM, change)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert notifier.wait_until(lambda: changed) is True
    finally:
        signal.signal(signal.SIGALRM, before)


class Park:
    """A custom waiter, as a fiber passes it."""

    def __init__(self) -> None:
        self.timeouts: list[float | None] = []
        self.puts = 0

    def put(self, item: None) -> None:
        self.puts += 1

    def get(self, *, timeout: float | None) -> None:
        self.timeouts.append(timeout)
        if timeout is not None:
            raise Empty


def test_a_custom_waiter() -> None:
    notifier = Notifier()
    park = Park()

    def is_changed() -> bool:
        notifier.notify()
        return len(park.timeouts) == 2

    assert notifier.wait_until(is_changed, waiter=park) is True
    assert (park.timeouts, park.puts) == ([None, None], 3)
    end = monotonic() + 0.001
    assert notifier.wait_until(lambda: False, lambda: end, waiter=park) is False
    assert all(timeout is not None and timeout >= 0 for timeout in park.timeouts[2:])
