"""The order of each peer: its datagrams are handled one after the other, as they came.

A strategy that would run them at once asks it before it starts one, and when one has ended.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from everserve.lifecycle.session import put_bounded

__all__ = ["PeerOrder"]


class PeerOrder:
    """What waits for the datagram of the same peer that is being handled. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Any, deque[Any]] = {}  # of the peers of which one is being handled

    def enter(self, peer: Any, request: Any, limit: int, drops: str) -> tuple[bool, Any]:
        """``(True, None)`` to start ``request`` now; else it waits, and the second is one to drop.

        At most ``limit`` requests of a peer wait; ``drops`` says which is dropped above that.
        """
        with self._lock:
            waiting = self._waiting.get(peer)
            if waiting is None:
                self._waiting[peer] = deque()
                return True, None
            return False, put_bounded(waiting, request, limit, drops)

    def leave(self, peer: Any) -> Any:
        """One of ``peer`` has ended: returns the next to start, ``None`` if there is none."""
        with self._lock:
            waiting = self._waiting.get(peer)
            if waiting:
                return waiting.popleft()
            self._waiting.pop(peer, None)
            return None

    def clear(self) -> list[Any]:
        """Return all that wait; none of them will be started."""
        with self._lock:
            waiting = [request for queue in self._waiting.values() for request in queue]
            for queue in self._waiting.values():
                queue.clear()
            return waiting
