"""The deadline of datagrams that are handled in batches, for all of them together.

``DatagramAccount`` begins one where ``request_timeout`` is set; the watchdog calls it. Only a datagram
whose handler takes long is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from everserve.lifecycle.connections import ConnectionTable, RunInProgress

__all__ = ["RunSweep"]

_PAUSE = 0.01
"""Seconds until the next look at a run that is emitting an event: others must not come between."""


class RunSweep:
    """Checks the datagram that each run handles, at least once in each ``timeout`` (seconds).

    ``on_over(self)`` is called when no run is left: whoever begins then needs a new sweep.
    """

    is_shared = True

    def __init__(
        self,
        timeout: float,
        connections: ConnectionTable,
        on_over: Callable[[RunSweep], object],
    ) -> None:
        self._timeout = timeout
        self._connections = connections
        self._on_over = on_over

    def due(self, now: float) -> float | None:
        """Check what is due. Returns the time of the next check; ``None`` if no run is left."""
        runs = self._connections.runs
        if not runs:
            self._on_over(self)
            if not runs:  # else one has begun meanwhile, and may count on this sweep
                return None
        return min([now + self._timeout, *(self._look(run, now) for run in tuple(runs))])

    def _look(self, run: RunInProgress, now: float) -> float:
        if run.account is None or run.request is None:
            return inf
        if run.emitting:
            return now + _PAUSE
        connection = self._connections.enter(run)
        if connection is None or connection.deadlines is None:
            return inf
        again = connection.deadlines.due(now)
        return inf if again is None else again
