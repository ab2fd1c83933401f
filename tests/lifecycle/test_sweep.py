"""``lifecycle.sweep``: deadlines that many connections share. Clock and traffic are fakes."""

from __future__ import annotations

import threading
from math import inf
from time import monotonic
from typing import Any

import pytest
from tests.clients import LIMIT

from everserve.admission.deadlines import TimeLimits
from everserve.admission.watchdog import Watchdog
from everserve.lifecycle.connection import Connection
from everserve.lifecycle.stages import Connections, ConnectionState
from everserve.lifecycle.sweep import Sweep
from everserve.sockets.tcpinfo import Traffic


class Faked(Connection):
    quiet = 0.0
    waiting = False

    def traffic(self) -> Traffic:
        return Traffic(self.quiet, 0, 0, self.waiting)


class Swept:
    """A sweep that began at 0.0, and what it has reported."""

    def __init__(self, idle: float | None = 10.0, write: float | None = None) -> None:
        self.missed: list[tuple[int, str]] = []
        self.over: list[Sweep] = []
        self.items: dict[int, Connection] = {}
        self.sweep = Sweep(
            TimeLimits(idle, None, write),
            Connections(self.items),
            self.miss,
            self.over.append,
            began=0.0,
        )

    def miss(self, connection: Connection, name: str) -> None:
        self.missed.append((connection.id, name))

    def add(self, number: int, opened: float | None) -> Faked:
        connection = Faked(number, number, "peer")
        if opened is not None:
            connection.opened = opened
            connection.state = ConnectionState.HANDLING
        self.items[number] = connection
        return connection


def test_the_first_look_is_at_the_shortest_limit() -> None:
    assert Swept(idle=10).sweep.first_look == 10
    assert Swept(idle=10, write=4).sweep.first_look == 2  # which is checked twice in its time


def test_each_is_checked_when_it_is_due() -> None:
    swept = Swept(idle=10)
    swept.add(1, opened=0.0).quiet = 10
    second = swept.add(2, opened=4.0)
    assert swept.sweep.due(10) == 14
    assert swept.missed == [(1, "idle_timeout")]
    del swept.items[1]
    second.quiet = 4
    assert swept.sweep.due(14) == 20
    second.quiet = 10
    swept.sweep.due(20)
    assert swept.missed == [(1, "idle_timeout"), (2, "idle_timeout")]


def test_it_looks_no_more_often_than_four_times_in_the_shortest_limit() -> None:
    swept = Swept(idle=10)
    swept.add(1, opened=0.5)
    assert swept.sweep.due(10) == 12.5


def test_it_ends_with_the_last_connection() -> None:
    swept = Swept()
    swept.add(1, opened=0.0)
    assert swept.sweep.due(10) is not None
    assert swept.over == []
    swept.items.clear()
    assert swept.sweep.due(20) is None
    assert swept.over == [swept.sweep]
    assert swept.sweep.until == 20


def test_a_handler_that_has_not_begun_is_waited_for() -> None:
    swept = Swept(idle=10)
    connection = swept.add(1, opened=None)
    connection.quiet = 1000
    assert swept.sweep.due(10) == 20
    assert swept.missed == []


def test_those_of_other_limits_are_left_to_them() -> None:
    swept = Swept(idle=10)
    swept.add(1, opened=-1.0).quiet = 1000
    swept.add(2, opened=7.0).quiet = 1000
    swept.add(3, opened=3.0).deadlines = object()  # type: ignore[assignment]
    swept.sweep.until = 5.0
    assert swept.sweep.due(50) is None
    assert swept.missed == []


def test_a_peer_that_does_not_read() -> None:
    swept = Swept(idle=None, write=4)
    swept.add(1, opened=0.0).waiting = True
    assert swept.sweep.due(2) == 4
    assert swept.sweep.due(4) == 6
    assert swept.missed == []
    swept.sweep.due(6)
    assert swept.missed == [(1, "write_timeout")]


@pytest.mark.parametrize("state", [ConnectionState.CLOSED])
def test_one_that_has_ended(state: Any) -> None:
    swept = Swept()
    swept.add(1, opened=0.0).state = state
    assert swept.sweep.due(10) < inf
    assert swept.missed == []


def test_a_watchdog_that_closes_ends_a_sweep_without_connections() -> None:
    swept = Swept()
    watchdog = Watchdog("closing")
    watchdog.watch(swept.sweep, monotonic() + 1000)
    watchdog.close()
    for thread in threading.enumerate():
        if thread.name == "closing":
            thread.join(LIMIT)
            assert not thread.is_alive()
    assert len(watchdog) == 0
