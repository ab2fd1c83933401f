"""``server.bell``: threads wait for a change, without a lock and without polling."""

from __future__ import annotations

import signal
import threading
from time import monotonic

import pytest
from tests.clients import Background

from everserve.server.bell import Bell


def test_a_condition_that_holds_needs_no_ring() -> None:
    assert Bell().wait_until(lambda: True) is True


def test_it_looks_again_at_every_ring() -> None:
    bell = Bell()
    looks = threading.Semaphore(0)
    asked = 0

    def third_time() -> bool:
        nonlocal asked
        asked += 1
        looks.release()
        return asked == 3

    waiter = Background(bell.wait_until, third_time)
    for _ in range(2):
        looks.acquire()
        bell.ring()
    assert waiter.result() is True
    assert asked == 3


def test_all_who_wait_are_woken() -> None:
    bell = Bell()
    ready = threading.Barrier(4)
    rung = False

    def is_rung() -> bool:
        if not rung:
            ready.wait(10)
        return rung

    waiters = [Background(bell.wait_until, is_rung) for _ in range(3)]
    ready.wait(10)
    rung = True
    bell.ring()
    for waiter in waiters:
        assert waiter.result() is True


def test_after_the_deadline_it_is_false() -> None:
    bell = Bell()
    assert bell.wait_until(lambda: False, lambda: monotonic() + 0.0) is False
    end = monotonic() + 0.01
    assert bell.wait_until(lambda: False, lambda: end) is False
    assert monotonic() >= end


def test_the_deadline_may_be_moved() -> None:
    bell = Bell()
    deadline: list[float] = [monotonic() + 3600]
    asked = threading.Event()

    def when() -> float:
        asked.set()
        return deadline[0]

    waiter = Background(bell.wait_until, lambda: False, when)
    asked.wait(10)
    deadline[0] = monotonic()
    bell.ring()
    assert waiter.result() is False


def test_nobody_is_left_on_the_list() -> None:
    bell = Bell()
    bell.wait_until(lambda: True)
    bell.wait_until(lambda: False, lambda: monotonic())
    with pytest.raises(ZeroDivisionError):
        bell.wait_until(lambda: bool(1 / 0))
    assert bell._listeners == []
    bell.ring()


@pytest.mark.timeout(60, method="thread")  # SIGALRM is its own
def test_a_signal_handler_may_ring_for_the_thread_it_interrupts() -> None:
    bell = Bell()
    rung = False

    def ring(*_: object) -> None:
        nonlocal rung
        rung = True
        bell.ring()

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert bell.wait_until(lambda: rung) is True
    finally:
        signal.signal(signal.SIGALRM, before)
