"""Connections that have come from another process, on their way into the accept loop of this one.

A worker puts them in, from any thread; the loop passes each to ``Flow.admit_again``.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from everserve.lifecycle.arrival import Arrival

__all__ = ["Arrivals", "NotMovable", "slot_of"]


class NotMovable(Exception):
    """A connection cannot move. ``reason`` is that of ``Stayed``; the cause has the details."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Slot(Protocol):
    """The private attribute of a handler class, where its connections may move."""

    def moves(self, kind: type) -> bool:
        """True if the class has ``handover``."""

    def pack(self, conversation: Any) -> bytes:
        """The handler of a conversation, and what is known of its connection. Raises ``NotMovable``."""

    def unpack(self, kind: type, server: Any, data: bytes, descriptor: int) -> Arrival:
        """Make both anew; the descriptor is the result's. Raises ``NotMovable``."""


def slot_of(kind: Any) -> Slot | None:
    """The slot of a handler class whose connections move; ``None`` for any other."""
    slot: Any = getattr(kind, "_everserve", None) if isinstance(kind, type) else None
    return slot if hasattr(type(slot), "pack") and slot.moves(kind) else None


class Arrivals:
    """A queue; ``wake()`` has the accept loop look: those ``waiting`` come in its next turn."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self.waiting: deque[Arrival] = deque()
        self._lock = threading.Lock()
        self._is_open = False

    def open(self) -> None:
        """Take arrivals from now on."""
        self._is_open = True

    def put(self, arrivals: Iterable[Arrival]) -> None:
        """Have the loop admit them; they are closed at once where none runs any more."""
        with self._lock:
            if self._is_open:
                self.waiting.extend(arrivals)
                self._wake()
                return
        for arrival in arrivals:
            arrival.close()

    def admit(self, function: Callable[[Arrival], object]) -> None:
        """Call ``function`` for each that waits. On the accept loop."""
        while self.waiting:
            function(self.waiting.popleft())

    def close(self) -> None:
        """Take no more: no loop runs."""
        with self._lock:
            self._is_open = False
            waiting = tuple(self.waiting)
            self.waiting.clear()
        for arrival in waiting:
            arrival.close()
