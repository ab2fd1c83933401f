"""Whose turn it is: the datagrams of one peer run one after the other, in the order of their arrival.

The strategy of pools asks before it gives a datagram to a worker, which goes on with those of its peer.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

__all__ = ["Turns"]


class Turns:
    """What waits, by peer. ``waiting`` counts all of it. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_peer: dict[Any, deque[Any]] = {}
        self.waiting = 0

    def wait(self, request: Any, peer: Any) -> bool:
        """Have ``request`` wait, if one of its peer runs; false: it is its turn, until ``next``."""
        with self._lock:
            line = self._by_peer.get(peer)
            if line is None:
                self._by_peer[peer] = deque()
                return False
            line.append(request)
            self.waiting += 1
            return True

    def next(self, peer: Any) -> Any:
        """The request that runs now, after one of its peer; ``None`` if none waits."""
        with self._lock:
            line = self._by_peer.get(peer)
            if not line:
                self._by_peer.pop(peer, None)
                return None
            self.waiting -= 1
            return line.popleft()

    def drop_oldest(self) -> Any:
        """Remove the oldest that waits, of the peer that has the most; ``None`` if none waits."""
        with self._lock:
            longest = max(self._by_peer.values(), key=len, default=None)
            if not longest:
                return None
            self.waiting -= 1
            return longest.popleft()

    def forget(self, peer: Any) -> None:
        """Note that the request whose turn it was will not run. None waits behind it any more."""
        with self._lock:
            if not self._by_peer.get(peer, True):
                del self._by_peer[peer]

    def drop_all(self) -> list[Any]:
        """Remove all that waits."""
        with self._lock:
            dropped = [request for line in self._by_peer.values() for request in line]
            for line in self._by_peer.values():
                line.clear()
            self.waiting = 0
            return dropped
