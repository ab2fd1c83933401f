"""A few bytes that a process shares with the children it forks.

``ForkingMixIn`` tells its children that the server drains, and they ask it to stop; each child notes
how its request went.
"""

from __future__ import annotations

import json
import mmap
import struct
from dataclasses import asdict, replace
from typing import NamedTuple

from everserve.admission.outcome import Outcome
from everserve.events import DeadlineMissed, Event, Failed, Finished, Refused

__all__ = ["Note", "Request", "SharedWord"]

_SHUTDOWN, _STOP = 1, 2
_WORD, _TEXT = 40, 200
"""Characters of a reason and of an error that are told: with 12 bytes each, as JSON has the worst of
them, they fit into a page."""


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


class Note:
    """What a child tells of its one request. Made before the fork; the parent closes it."""

    ENDS = (Refused, Failed, Finished, DeadlineMissed)
    """The events that become the ``outcome``, for the parent to emit."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 4096)
        self._outcome = Outcome()

    @property
    def greeted(self) -> bool:
        """True once the TLS handshake is over."""
        return self._memory[0] != 0

    @greeted.setter
    def greeted(self, greeted: bool) -> None:
        self._memory[0] = greeted

    def take_down(self, event: Event) -> None:
        """For the child: note what ``event`` says of the end."""
        if not isinstance(event, self.ENDS):
            return  # a child that is killed after it has begun has noted nothing
        match event:
            case DeadlineMissed():
                self._outcome = replace(self._outcome, missed=event.deadline[:_WORD])
            case Refused():
                error = "" if event.error is None else repr(event.error)[:_TEXT]
                self._outcome = replace(self._outcome, refused=event.reason[:_WORD], error=error)
            case Failed():
                self._outcome = replace(
                    self._outcome,
                    failed=True,
                    error=repr(event.error)[:_TEXT],
                    peer_gone=event.peer_gone,
                )
        text = json.dumps(asdict(self._outcome)).encode()
        self._memory[4 : 4 + len(text)] = text
        self._memory[2:4] = struct.pack("H", len(text))  # last: the child may be killed meanwhile

    def read(self) -> Outcome | None:
        """For the parent: what was noted; ``None`` if the child did not come to that."""
        (size,) = struct.unpack("H", self._memory[2:4])
        return Outcome(**json.loads(self._memory[4 : 4 + size])) if size else None

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
