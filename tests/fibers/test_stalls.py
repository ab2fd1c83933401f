"""The stall watch: reports which fiber holds the loop and where, once, and ignores an idle hub."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from tests.threads import Exhausted

from everserve.fibers import stalls
from everserve.fibers.stalls import StallWatch, _Subject, watch_stalls


class Reports:
    def __init__(self) -> None:
        self.stalls: list[tuple[Any, str]] = []
        self.came = threading.Event()

    def __call__(self, fiber: Any, stack: str) -> None:
        self.stalls.append((fiber, stack))
        self.came.set()


def test_a_fiber_that_holds_the_loop_is_reported_with_its_stack(hub: Any) -> None:
    reports = Reports()
    watch_stalls(hub, reports, 0.02)

    def holds_the_loop() -> None:
        assert reports.came.wait(20)

    fiber = hub.spawn(holds_the_loop)
    assert fiber.join(20)
    [(held_by, stack)] = reports.stalls
    assert held_by is fiber
    assert "holds_the_loop" in stack


def test_a_stall_after_a_long_idle_time_is_reported_too(hub: Any) -> None:
    reports = Reports()
    watch_stalls(hub, reports, 0.02)
    hub.turn(0.2)

    def holds() -> None:
        assert reports.came.wait(20)

    hub.call_at(time.monotonic() + 0.1, lambda: hub.spawn(holds))
    while not reports.stalls:
        hub.turn(5)


def test_the_same_place_is_reported_once_a_minute(hub: Any) -> None:
    reports = Reports()
    subject = _Subject(hub, reports, 0.1)

    def looks() -> None:
        for minute in (0.0, 30.0, 61.0):
            subject._switches = -1
            assert subject.look(minute)
            assert subject.look(minute + 0.05)
            assert subject.look(minute + 0.2)
            assert subject.look(minute + 0.3)

    fiber = hub.spawn(looks)
    hub.turn(0)
    assert fiber.dead
    assert len(reports.stalls) == 2
    subject.look(100.0)
    assert not subject.look(101.0)


def test_the_thread_ends_with_the_last_hub(parts: Any) -> None:
    watch = StallWatch()
    hub = parts.Hub()
    watch.watch(hub, Reports(), 0.02)
    thread = watch._thread
    assert thread is not None
    hub.close()
    thread.join(20)
    assert not thread.is_alive()


def test_a_callback_that_fails_does_not_end_the_watch(
    hub: Any, caplog: pytest.LogCaptureFixture
) -> None:
    subject = _Subject(hub, lambda *_: 1 / 0, 0.1)

    def looks() -> None:
        subject.look(0.0)
        subject.look(1.0)

    hub.spawn(looks)
    hub.turn(0)
    assert "ZeroDivisionError" in caplog.text


def test_a_watch_whose_thread_could_not_be_started_tries_again(
    hub: Any, exhausted: Exhausted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalls, "RETRY", 0.001)
    watch, reports = StallWatch(), Reports()
    watch.watch(hub, reports, 0.02)
    while exhausted.attempts < 2:
        hub.turn(10)
    exhausted.end()
    while watch._thread is None:
        hub.turn(10)
    fiber = hub.spawn(lambda: reports.came.wait(20))
    assert fiber.join(20)
    assert reports.stalls
