"""``admission.watchdog``: one thread that checks each deadline when it is due."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest
from tests.clients import LIMIT
from tests.threads import Exhausted

from everserve.admission.watchdog import Watchdog

HOUR = 3600.0


class Due:
    """A deadline that returns the given time of its next check."""

    def __init__(self, *again: float | None) -> None:
        self._again = iter(again)
        self.looks: list[float] = []
        self.looked = threading.Semaphore(0)

    def due(self, now: float) -> float | None:
        self.looks.append(now)
        self.looked.release()
        more = next(self._again, None)
        return None if more is None else now + more

    def wait(self) -> None:
        assert self.looked.acquire(timeout=LIMIT)


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    watchdog = Watchdog("watchdog-under-test")
    yield watchdog
    for deadline in tuple(watchdog._watched):
        watchdog.forget(deadline)
    watchdog.close()
    for thread in threads():
        thread.join(LIMIT)
    assert not threads()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "watchdog-under-test"]


def test_nothing_to_watch_is_no_thread(watchdog: Watchdog) -> None:
    assert not threads()
    assert len(watchdog) == 0


def test_it_checks_in_the_order_of_time(watchdog: Watchdog) -> None:
    order: list[str] = []

    class Named(Due):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def due(self, now: float) -> float | None:
            order.append(self.name)
            return super().due(now)

    begin = monotonic() + 0.05
    late, early, latest = Named("late"), Named("early"), Named("latest")
    watchdog.watch(late, begin + 0.001)
    watchdog.watch(early, begin)
    watchdog.watch(latest, begin + 0.002)
    assert len(threads()) == 1
    latest.wait()
    assert order == ["early", "late", "latest"]
    assert early.looks[0] >= begin


def test_an_earlier_one_is_not_missed(watchdog: Watchdog) -> None:
    far, near = Due(), Due()
    watchdog.watch(far, monotonic() + HOUR)
    watchdog.watch(near, monotonic())
    near.wait()
    assert not far.looks


def test_it_checks_again_at_the_returned_time(watchdog: Watchdog) -> None:
    deadline = Due(0.0, 0.001, None)
    watchdog.watch(deadline, monotonic())
    for _ in range(3):
        deadline.wait()


def test_a_deadline_that_is_past_is_due_at_once(watchdog: Watchdog) -> None:
    deadline = Due()
    watchdog.watch(deadline, 0.0)
    deadline.wait()


def test_a_forgotten_deadline_is_not_checked(watchdog: Watchdog) -> None:
    forgotten, other = Due(), Due()
    soon = monotonic() + 0.02
    watchdog.watch(forgotten, soon)
    watchdog.watch(other, soon)
    watchdog.forget(forgotten)
    assert len(watchdog) == 1
    other.wait()
    assert not forgotten.looks
    watchdog.forget(forgotten)  # once more does no harm


def test_forgetting_during_a_check(watchdog: Watchdog) -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Slow(Due):
        def due(self, now: float) -> float | None:
            super().due(now)
            entered.set()
            assert go_on.wait(LIMIT)
            return now

    slow, other = Slow(), Due()
    watchdog.watch(slow, 0.0)
    assert entered.wait(LIMIT)
    watchdog.forget(slow)
    watchdog.watch(other, monotonic())
    go_on.set()
    other.wait()
    assert len(slow.looks) == 1


def test_a_failure_of_one_does_not_stop_the_others(
    watchdog: Watchdog, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        def due(self, now: float) -> None:
            raise ValueError("meant to fail")

    other = Due()
    watchdog.watch(Failing(), 0.0)
    watchdog.watch(other, monotonic() + 0.001)
    other.wait()
    assert "meant to fail" in caplog.text
    caplog.clear()


def test_the_thread_ends_when_nothing_is_left(watchdog: Watchdog) -> None:
    deadline = Due()
    watchdog.watch(deadline, monotonic() + 0.001)
    (thread,) = threads()
    deadline.wait()
    thread.join(LIMIT)
    assert not threads()
    again = Due()
    watchdog.watch(again, 0.0)
    again.wait()


def test_close_does_not_wait_for_forgotten_deadlines(watchdog: Watchdog) -> None:
    first, second = Due(), Due()
    for deadline in (first, second):
        watchdog.watch(deadline, monotonic() + HOUR)
    (thread,) = threads()
    watchdog.forget(first)
    watchdog.close()
    assert thread.is_alive()  # a request is still in progress
    watchdog.forget(second)
    thread.join(LIMIT)
    assert not thread.is_alive()


def test_past_deadlines_leave_nothing(watchdog: Watchdog) -> None:
    keep = Due()
    watchdog.watch(keep, monotonic() + HOUR)
    for _ in range(10_000):
        gone = Due()
        watchdog.watch(gone, monotonic() + HOUR)
        watchdog.forget(gone)
    assert len(watchdog) == 1
    assert len(watchdog._heap) <= 65
    watchdog.forget(keep)


def test_a_forgotten_deadline_is_not_kept_alive(watchdog: Watchdog) -> None:
    """A deadline references its connection, with all the memory of its TLS."""
    gone = Due()
    watchdog.watch(gone, monotonic() + HOUR)
    watchdog.watch(gone, monotonic() + 2 * HOUR)
    watchdog.forget(gone)
    there = weakref.ref(gone)
    del gone
    assert there() is None


def test_many(watchdog: Watchdog) -> None:
    """Ten thousand armed, and disarmed out of order, by several threads."""
    deadlines = [Due() for _ in range(10_000)]

    def arm(some: list[Any]) -> None:
        for deadline in some:
            watchdog.watch(deadline, monotonic() + HOUR)
        for deadline in reversed(some):
            watchdog.forget(deadline)

    in_parallel(arm, [deadlines[start::4] for start in range(4)])
    assert len(watchdog) == 0
    assert not any(deadline.looks for deadline in deadlines)


def in_parallel(function: Callable[[Any], None], shares: list[Any]) -> None:
    workers = [threading.Thread(target=function, args=(share,)) for share in shares]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(LIMIT)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_starts_without_deadlines(watchdog: Watchdog) -> None:
    mine = Due()
    watchdog.watch(mine, monotonic() + HOUR)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            watchdog.forget(mine)
            watchdog.close()
            own = Due()
            watchdog.watch(own, monotonic())
            own.wait()
            status = 0 if len(watchdog) <= 1 and not mine.looks else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(watchdog) == 1
    watchdog.forget(mine)


@pytest.mark.parametrize("need", ["watch", "forget"])
def test_a_thread_that_could_not_be_started_is_started_at_the_next_need(
    watchdog: Watchdog, exhausted: Exhausted, need: str, caplog: pytest.LogCaptureFixture
) -> None:
    deadline, other = Due(), Due()
    watchdog.watch(deadline, monotonic())
    watchdog.watch(other, monotonic() + HOUR)
    assert "watchdog-under-test cannot be started" in caplog.text
    assert not deadline.looks
    exhausted.end()
    if need == "watch":
        watchdog.watch(other, monotonic() + HOUR)
    else:
        watchdog.forget(other)
    deadline.wait()


@pytest.mark.parametrize("error", [ValueError, SystemExit, MemoryError])
def test_a_check_that_failed_is_repeated(
    watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    monkeypatch.setattr("everserve.admission.watchdog.RETRY", 0.0)

    class Failing(Due):
        def due(self, now: float) -> float | None:
            if not self.looks:
                self.looks.append(now)
                raise error
            return super().due(now)

    deadline = Failing()
    watchdog.watch(deadline, monotonic())
    deadline.wait()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_failed_is_replaced(
    watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def fail() -> None:
        try:
            raise SystemExit
        finally:
            ended.set()

    monkeypatch.setattr(watchdog, "_next_due", fail)
    deadline = Due()
    watchdog.watch(deadline, monotonic())
    assert ended.wait(LIMIT)
    for thread in threads():
        thread.join(LIMIT)
    monkeypatch.undo()
    watchdog.watch(deadline, monotonic())
    deadline.wait()
