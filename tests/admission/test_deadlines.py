"""``admission.deadlines``: whether a connection keeps to its limits, by a made-up clock and traffic."""

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
    """A connection on which what has moved is made up."""

    def __init__(self) -> None:
        self.now: Traffic | None = Traffic(0.0, 0, 0, False)

    def traffic(self) -> Traffic | None:
        return self.now


class Watched:
    """A ``ConnectionDeadlines``, its connection, and what was missed."""

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
        """Look so many seconds after the beginning; when to look again, counted from there."""
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


def test_what_was_before_the_handler_is_not_its_idleness() -> None:
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


def test_write_timeout_begins_anew_with_each_byte() -> None:
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


def test_a_byte_a_second_does_not_pass() -> None:
    watched = Watched(min_receive_rate=10, idle_timeout=60)
    assert watched.look(FIRST_GRACE, quiet=0.5, received=5) is None
    assert watched.missed == ["min_receive_rate"]


def test_in_the_first_grace_nothing_is_too_slow() -> None:
    watched = Watched(min_receive_rate=1e9, request_timeout=1)
    assert watched.deadlines.first_look == BEGAN + 1
    watched = Watched(min_receive_rate=1e9, idle_timeout=1)
    assert watched.look(1, quiet=0, received=1) == 2


def test_the_earliest_of_all_is_looked_at_first() -> None:
    watched = Watched(idle_timeout=30, request_timeout=100, write_timeout=8, min_receive_rate=10)
    assert watched.deadlines.first_look == BEGAN + 4
    assert watched.look(4, received=1000) == 8  # write_timeout is looked at twice
    assert watched.look(8, quiet=1, received=90, delivered=1) == 9


def test_it_is_missed_once_and_by_one_name() -> None:
    watched = Watched(idle_timeout=1, write_timeout=1, min_receive_rate=10)
    watched.look(100, quiet=50, waiting=True)
    assert watched.missed == ["idle_timeout"]


def test_where_it_is_not_known_what_moves_the_request_still_ends() -> None:
    watched = Watched(idle_timeout=1, request_timeout=10)
    watched.connection.now = None
    assert watched.deadlines.due(BEGAN + 5) == BEGAN + 10
    assert watched.deadlines.due(BEGAN + 10) is None
    assert watched.missed == ["request_timeout"]


def test_a_connection_that_need_not_be_asked_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(request_timeout=10)
    monkeypatch.setattr(watched.connection, "traffic", lambda: pytest.fail("asked"))
    assert watched.deadlines.due(BEGAN + 5) == BEGAN + 10


def test_a_stage() -> None:
    missed: list[bool] = []
    assert StageDeadline(lambda: missed.append(True)).due(1.0) is None
    assert missed == [True]
