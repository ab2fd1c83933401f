"""The deadlines of one connection while its handler runs.

``steps`` arms them. The watchdog checks them when they are due, and cuts a connection that missed one:
a blocked read ends, a blocked write raises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from everserve.sockets.tcpinfo import Traffic

__all__ = ["ConnectionDeadlines", "StageDeadline", "TimeLimits"]

FIRST_GRACE = 5.0
"""Seconds after which the rate of a connection is checked first."""


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """The limits of a connection; ``None`` is no limit. In seconds; the rate is in bytes/s."""

    idle_timeout: float | None = None
    request_timeout: float | None = None
    write_timeout: float | None = None
    min_receive_rate: float | None = None

    def __bool__(self) -> bool:
        return any(
            limit is not None
            for limit in (
                self.idle_timeout,
                self.request_timeout,
                self.write_timeout,
                self.min_receive_rate,
            )
        )

    @property
    def need_traffic(self) -> bool:
        """True if a limit depends on how many bytes have moved."""
        return any(
            limit is not None
            for limit in (self.idle_timeout, self.write_timeout, self.min_receive_rate)
        )


class Observed(Protocol):
    """A connection."""

    def traffic(self) -> Traffic | None:
        """How many bytes have moved over it; ``None`` if that is not known."""


class StageDeadline:
    """The moment by which a stage (PROXY header, TLS handshake) must be over."""

    __slots__ = ("_miss",)

    def __init__(self, miss: Callable[[], None]) -> None:
        self._miss = miss

    def due(self, now: float) -> None:
        """The moment has come and the stage is not over."""
        self._miss()


class ConnectionDeadlines:
    """Checks whether a connection keeps its limits. ``miss(name)`` is called once if it does not.

    ``first_look`` is the time of the first check. The limits are those at the start of the request.
    """

    def __init__(
        self,
        limits: TimeLimits,
        connection: Observed,
        miss: Callable[[str], None],
        *,
        began: float | None = None,
    ) -> None:
        self._limits = limits
        self._connection = connection
        self._miss = miss
        self.began = monotonic() if began is None else began
        self._delivered = -1
        self._progress = self.began
        self.ends = None if limits.request_timeout is None else self.began + limits.request_timeout

    @property
    def first_look(self) -> float:
        """The monotonic time of the earliest moment at which anything can be missed."""
        limits = self._limits
        moments = [
            self.began + limit
            for limit in (limits.idle_timeout, limits.request_timeout)
            if limit is not None
        ]
        if limits.write_timeout is not None:
            moments.append(self.began + limits.write_timeout / 2)
        if limits.min_receive_rate is not None:
            moments.append(self.began + FIRST_GRACE)
        return min(moments)

    def due(self, now: float) -> float | None:
        """Check. Returns the time of the next check; ``None`` if one was missed or none is left."""
        if self.ends is not None and now >= self.ends:
            self._miss("request_timeout")
            return None
        traffic = self._connection.traffic() if self._limits.need_traffic else None
        if traffic is None:
            return self.ends
        moments = [] if self.ends is None else [self.ends]
        for name, moment in (
            ("idle_timeout", self._idle(traffic, now)),
            ("write_timeout", self._stuck(traffic, now)),
            ("min_receive_rate", self._slow(traffic, now)),
        ):
            if moment is None:
                continue
            if moment <= now:
                self._miss(name)
                return None
            moments.append(moment)
        return min(moments, default=None)

    def _idle(self, traffic: Traffic, now: float) -> float | None:
        """When the connection will have been quiet for too long."""
        if self._limits.idle_timeout is None:
            return None
        quiet_since = max(self.began, now - traffic.quiet)
        return quiet_since + self._limits.idle_timeout

    def _stuck(self, traffic: Traffic, now: float) -> float | None:
        """When the peer will have read nothing of the waiting bytes for too long.

        Checked twice in each ``write_timeout``, so a cut comes late by half of it at most.
        """
        limit = self._limits.write_timeout
        if limit is None:
            return None
        if not traffic.waiting or traffic.delivered != self._delivered:
            self._delivered, self._progress = traffic.delivered, now
        end = self._progress + limit
        return end if end <= now else min(end, now + limit / 2)

    def _slow(self, traffic: Traffic, now: float) -> float | None:
        """When the average rate since the beginning becomes too low if no more bytes come."""
        rate = self._limits.min_receive_rate
        if rate is None:
            return None
        return max(self.began + FIRST_GRACE, self.began + traffic.received / rate)
