"""offload: blocking code in threads, while the fiber is parked and the loop is free."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from everserve.fibers.offloading import offload
from everserve.fibers.sync import sleep

Run = Callable[..., Any]


def test_it_runs_in_another_thread_and_returns_here(run: Run) -> None:
    assert run(offload, threading.current_thread).name.startswith("everserve-offload")
    assert offload(threading.current_thread) is threading.current_thread()


def test_its_error_is_raised_here(run: Run) -> None:
    with pytest.raises(ZeroDivisionError):
        run(offload, lambda: 1 / 0)


def test_the_others_run_meanwhile(hub: Any) -> None:
    gate = threading.Event()
    order: list[str] = []

    def blocks() -> None:
        assert offload(gate.wait, 20)
        order.append("blocked")

    def other() -> None:
        sleep()
        order.append("other")
        gate.set()

    hub.spawn(blocks)
    hub.spawn(other)
    while hub.fibers:
        hub.turn(10)
    assert order == ["other", "blocked"]


def test_it_runs_in_the_context_of_the_fiber(run: Run) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")

    def sets() -> int:
        variable.set(5)
        return offload(variable.get)

    assert run(sets) == 5


def test_the_call_of_a_killed_fiber_goes_on(hub: Any) -> None:
    gate = threading.Event()
    fiber = hub.spawn(offload, gate.wait, 20)
    hub.turn(0)
    fiber.kill()
    hub.turn(0)
    assert fiber.dead
    gate.set()


def test_calls_beyond_the_pool_are_queued(hub: Any) -> None:
    hub.pool = ThreadPoolExecutor(1)
    threads: set[int] = set()
    for _ in range(20):
        hub.spawn(lambda: threads.add(offload(threading.get_ident)))
    while hub.fibers:
        hub.turn(10)
    assert len(threads) == 1
