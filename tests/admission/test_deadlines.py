"""``admission.deadlines``: whether a connection keeps its limits. Clock and traffic are fakes."""

from __future__ import annotations

import pytest

from everserve.admission.deadlines import (
    FIRST_GRACE,
    ConnectionDeadlines,
    StageDeadline,
    TimeLimits,
)
from everserve.sockets.tcpinfo import Traffic

BEGAN = 1000.0


class FakeConnection:
    """A connection whose traffic a test sets."""

    def __init__(self) -> None:
        self.now: Traffic | None = Traffic(0.0, 0, 0, False)

    def traffic(self) -> Traffic | None:
        return self.now


class Watched:
    """A ``ConnectionDeadlines``, its connection, and the missed deadlines."""

    def __init__(self, **limits: float) -> None:
        self.connection = FakeConnection()
        self.missed: list[str] = []
        self.deadlines = ConnectionDeadlines(
            TimeLimits(**limits), self.connection, self.missed.append, began=BEGAN
        )

    def look(
        self,
        after: float,
        quiet: float = 0.0,
        received: int = 0,
        delivered: int = 0,
        waiting: bool = False,
    ) -> float | None:
        """Check so many seconds after the beginning. Returns the time of the next check, from there."""
        self.connection.now = Traffic(quiet, received, delivered, waiting)
        again = self.deadlines.due(BEGAN + after)
        return None if again is None else round(again - BEGAN, 6)


def test_no_limits() -> None:
    assert not TimeLimits()
    assert not TimeLimits().need_traffic
    assert TimeLimits(request_timeout=1)
    assert not TimeLimits(request_timeout=1).need_traffic
    for name in ("idle_timeout", "write_timeout", "min_receive_rate"):
        assert TimeLimits(**{name: 1}).need_traffic


def test_request_timeout() -> None:
    watched = Watched(request_timeout=10)
    assert watched.deadlines.ends == watched.deadlines.first_look == BEGAN + 10
    assert watched.look(9.9) == 10
    assert watched.look(10) is None
    assert watched.missed == ["request_timeout"]


def test_idle_timeout() -> None:
    watched = Watched(idle_timeout=10)
    assert watched.deadlines.ends is None
    assert watched.deadlines.first_look == BEGAN + 10
    assert watched.look(10, quiet=4) == 16
    assert watched.look(16, quiet=0) == 26
    assert watched.missed == []
    assert watched.look(26, quiet=10) is None
    assert watched.missed == ["idle_timeout"]


def test_time_before_the_handler_does_not_count_as_idle() -> None:
    watched = Watched(idle_timeout=10)
    assert watched.look(5, quiet=100) == 10


def test_write_timeout() -> None:
    watched = Watched(write_timeout=10)
    assert watched.deadlines.first_look == BEGAN + 5
    assert watched.look(5, delivered=100, waiting=True) == 10
    assert watched.look(10, delivered=100, waiting=True) == 15
    assert watched.missed == []
    assert watched.look(15, delivered=100, waiting=True) is None
    assert watched.missed == ["write_timeout"]


def test_write_timeout_starts_again_with_each_byte() -> None:
    watched = Watched(write_timeout=10)
    for step in range(1, 50):
        assert watched.look(5 * step, delivered=step, waiting=True) == 5 * step + 5
    assert watched.look(250, delivered=49, waiting=True) == 255
    assert watched.look(255, delivered=49, waiting=True) is None


def test_nothing_to_write_is_not_stuck() -> None:
    watched = Watched(write_timeout=10)
    for step in range(1, 50):
        assert watched.look(5 * step, delivered=7) == 5 * step + 5
    assert watched.missed == []


def test_min_receive_rate() -> None:
    watched = Watched(min_receive_rate=100)
    assert watched.deadlines.first_look == BEGAN + FIRST_GRACE
    assert watched.look(FIRST_GRACE, received=1000) == 10
    assert watched.look(10, received=1200) == 12
    assert watched.look(12, received=1200) is None
    assert watched.missed == ["min_receive_rate"]


def test_a_byte_a_second_is_too_slow() -> None:
    watched = Watched(min_receive_rate=10, idle_timeout=60)
    assert watched.look(FIRST_GRACE, quiet=0.5, received=5) is None
    assert watched.missed == ["min_receive_rate"]


def test_during_the_first_seconds_nothing_is_too_slow() -> None:
    watched = Watched(min_receive_rate=1e9, request_timeout=1)
    assert watched.deadlines.first_look == BEGAN + 1
    watched = Watched(min_receive_rate=1e9, idle_timeout=1)
    assert watched.look(1, quiet=0, received=1) == 2


def test_the_earliest_deadline_is_checked_first() -> None:
    watched = Watched(idle_timeout=30, request_timeout=100, write_timeout=8, min_receive_rate=10)
    assert watched.deadlines.first_look == BEGAN + 4
    assert watched.look(4, received=1000) == 8  # write_timeout is checked twice
    assert watched.look(8, quiet=1, received=90, delivered=1) == 9


def test_one_deadline_is_missed_once() -> None:
    watched = Watched(idle_timeout=1, write_timeout=1, min_receive_rate=10)
    watched.look(100, quiet=50, waiting=True)
    assert watched.missed == ["idle_timeout"]


def test_with_unknown_traffic_the_request_still_ends() -> None:
    watched = Watched(idle_timeout=1, request_timeout=10)
    watched.connection.now = None
    assert watched.deadlines.due(BEGAN + 5) == BEGAN + 10
    assert watched.deadlines.due(BEGAN + 10) is None
    assert watched.missed == ["request_timeout"]


def test_traffic_is_only_read_if_a_limit_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(request_timeout=10)
    monkeypatch.setattr(watched.connection, "traffic", lambda: pytest.fail("asked"))
    assert watched.deadlines.due(BEGAN + 5) == BEGAN + 10


def test_a_stage() -> None:
    missed: list[bool] = []
    assert StageDeadline(lambda: missed.append(True)).due(1.0) is None
    assert missed == [True]
