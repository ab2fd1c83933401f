"""A few bytes that a process shares with the children it forks.

``ForkingMixIn`` tells its children that the server drains, and they ask it to stop.
"""

from __future__ import annotations

import mmap
import struct
from typing import NamedTuple

__all__ = ["Request", "SharedWord"]

_SHUTDOWN, _STOP = 1, 2


class Request(NamedTuple):
    """What a child asks for: a ``stop(grace)``, or a ``shutdown()`` where ``grace`` is ``None``."""

    grace: float | None


class SharedWord:
    """Made before the first fork; lives as long as the processes that hold it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 10)

    @property
    def draining(self) -> bool:
        """True once the server drains."""
        return self._memory[0] != 0

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._memory[0] = draining

    def ask(self, grace: float | None) -> None:
        """Leave a request for the parent, who must then be woken."""
        self._memory[2:10] = struct.pack("d", grace or 0.0)
        self._memory[1] = _SHUTDOWN if grace is None else _STOP

    def take(self) -> Request | None:
        """The request that was left, once."""
        command, self._memory[1] = self._memory[1], 0
        if not command:
            return None
        (grace,) = struct.unpack("d", self._memory[2:10])
        return Request(None if command == _SHUTDOWN else grace)
