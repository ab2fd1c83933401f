"""The balance between processes that accept from one listener: who takes the next connection.

The acceptor of a worker asks it before it takes what waits. Where several processes wait for one
listener, the kernel wakes all of them, and the first to run would take the whole backlog.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from time import monotonic

__all__ = ["PLACES", "Balance", "Board"]

PLACES = 1024
"""Places of a board: workers that serve, and those that still drain."""

_SLACK = 2
_SLACK_SHARE = 8
"""A worker may have 2 connections, and an eighth, more than the one that has the fewest."""

_PAUSE = 0.01
"""Seconds in which the others may take what a worker leaves to them; some wake-ups' time."""

_LAPSE = 0.05
"""Seconds after a pause in which what waits is what was left, and no one else has taken it."""

_MOST = 64
"""Connections to take at most after a pause, where the others take none for long."""


class Board:
    """How many connections each worker has, in memory that they share.

    Made before the fork. Each place has one writer: its worker, and when that has ended the supervisor.
    """

    def __init__(self) -> None:
        self._counts = memoryview(mmap.mmap(-1, 4 * (PLACES + 1))).cast("i")

    def note(self, place: int, count: int) -> None:
        """Note the connections of a worker."""
        self._counts[place] = count + 1  # 0 is a place where no one accepts
        if place > self._counts[0]:
            self._counts[0] = place  # the highest place

    def count(self, place: int) -> int:
        """The connections of a worker, as it has noted them."""
        return max(0, self._counts[place] - 1)

    def leave(self, place: int) -> None:
        """Note that no one accepts at this place any more."""
        self._counts[place] = 0

    def least(self) -> int:
        """The fewest connections that one of the workers has."""
        counts = self._counts
        return min(filter(None, counts[1 : counts[0] + 1].tolist()), default=1) - 1


class Balance:
    """One server of one worker. ``now`` may be replaced by a test."""

    def __init__(self, board: Board, place: int, now: Callable[[], float] = monotonic) -> None:
        self._board = board
        self._place = place
        self._now = now
        self._until = 0.0  # the end of the pause in which others may take what waits
        self._forced = 1  # how many to take after it
        self.room = 0
        self.has_left = False

    def may_take(self, own: int) -> bool:
        """True to take up to ``room`` of what waits now; else after a pause, if it still waits.

        ``own``: the connections in progress here.
        """
        self.room = self._allowance(own)
        if self.room > 0:
            self._until, self._forced = 0.0, 1
            return True
        now = self._now()
        if self._until and 0 <= now - self._until < _LAPSE:
            self._until = 0.0
            self.room, self._forced = self._forced, min(2 * self._forced, _MOST)
            return True
        self._until = now + _PAUSE
        return False

    def took(self, own: int) -> bool:
        """Note what was taken. True if more may be taken without looking at other things first."""
        self.room = min(self.room - 1, self._allowance(own))
        return self.room > 0

    def note(self, own: int) -> None:
        """Let the others know how many connections are in progress here."""
        if not self.has_left:
            self._board.note(self._place, own)

    def pause(self) -> float:
        """Seconds for which what waits is left to the others; 0.0 for none."""
        return max(0.0, self._until - self._now()) if self._until else 0.0

    def leave(self) -> None:
        """Count no more: the server drains, and takes what waits in any case."""
        self.has_left = True
        self._until = 0.0
        self._board.leave(self._place)

    def _allowance(self, own: int) -> int:
        if self.has_left:
            return _MOST
        self._board.note(self._place, own)
        least = self._board.least()
        return least + _SLACK + least // _SLACK_SHARE - own
