"""Deadlines that many connections share, checked together, without a cost for each connection.

The flow of a request begins a sweep where nothing but ``idle_timeout`` and ``write_timeout`` is set and
the kernel counts the bytes; the watchdog calls it. For everything else a step of admission arms
deadlines for each connection.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from everserve.admission.deadlines import ConnectionDeadlines, TimeLimits
from everserve.lifecycle.connection import Connection
from everserve.lifecycle.stages import Connections, ConnectionState

__all__ = ["Sweep"]

_PAUSES = 4
"""Sweeps in the time of the shortest limit, at most: a cut comes late by a quarter of it at most."""


class Sweep:
    """Checks the connections whose handlers began from ``began`` on, until ``until`` is set.

    ``miss(connection, name)`` is called for one that misses a limit, ``on_over(sweep)`` when no
    connection is left, before the last look at them.
    """

    is_shared = True

    def __init__(
        self,
        limits: TimeLimits,
        connections: Connections[Connection],
        miss: Callable[[Connection, str], None],
        on_over: Callable[[Sweep], object],
        *,
        began: float,
    ) -> None:
        self._limits = limits
        self._connections = connections
        self._miss = miss
        self._on_over = on_over
        self._watched: dict[Connection, tuple[ConnectionDeadlines, float]] = {}
        self._began = began
        self.until = inf
        self.first_look = ConnectionDeadlines(limits, _NOTHING, _ignore, began=began).first_look
        self._shortest = self.first_look - began

    def due(self, now: float) -> float | None:
        """Check what is due. Returns the time of the next check; ``None`` if no connection is left."""
        if not self._connections:  # whoever begins from now on needs a new one
            self.until = min(self.until, now)
            self._on_over(self)
        watched: dict[Connection, tuple[ConnectionDeadlines, float]] = {}
        following = inf
        for connection in self._connections:
            if connection.state is ConnectionState.CLOSED or connection.deadlines is not None:
                continue
            if connection.state is not ConnectionState.HANDLING:
                following = min(following, now + self._shortest)
            elif self._began <= connection.opened < self.until:
                when = self._look(connection, now, watched)
                following = min(following, when)
        self._watched = watched
        if following == inf and self.until == inf and self._connections:
            following = now + self._shortest
        return None if following == inf else max(following, now + self._shortest / _PAUSES)

    def _look(
        self,
        connection: Connection,
        now: float,
        watched: dict[Connection, tuple[ConnectionDeadlines, float]],
    ) -> float:
        deadlines, when = self._watched.get(connection) or self._begin(connection)
        if when <= now:
            again = deadlines.due(now)
            when = inf if again is None else again
        watched[connection] = deadlines, when
        return when

    def _begin(self, connection: Connection) -> tuple[ConnectionDeadlines, float]:
        deadlines = ConnectionDeadlines(
            self._limits,
            connection,
            lambda name: self._miss(connection, name),
            began=connection.limited_since,
        )
        return deadlines, deadlines.first_look


class _Nothing:
    def traffic(self) -> None:
        return None


_NOTHING = _Nothing()


def _ignore(name: str) -> None:
    """A deadline of nothing is never missed."""
