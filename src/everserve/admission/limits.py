# cython: binding=False, annotation_typing=False
"""How many connections, and how fast: the counters that the accept loop checks.

One source for both engines: ``_limits`` is this file, compiled, with the types of ``_limits.pxd``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any

from everserve.admission.access import host_of

__all__ = ["PeerCounter", "PeerRates", "TokenBucket"]

_LONG = 86_400.0
"""Seconds until the next check at a rate of 0: the rate may have been changed."""


class TokenBucket:
    """Passes ``rate`` items a second on average, and up to ``burst`` of them at once.

    For the accept loop alone, but for ``give_back``, which any thread may call.
    """

    def __init__(
        self, rate: float, burst: float | None = None, now: Callable[[], float] = monotonic
    ) -> None:
        """``burst`` defaults to one second's worth, at least 1. With a rate of 0 nothing passes."""
        self.rate = rate
        self.asked = burst
        self.burst = max(1.0, rate if burst is None else burst)
        self._now = now
        self._tokens = self.burst if rate > 0 else 0.0
        self._at = now()
        self._returned = 0
        self._lock = threading.Lock()

    def wait(self) -> float:
        """Seconds until the next item may pass; 0.0 for at once."""
        now = self._now()
        if self._returned:
            self._tokens += self._take_returned()
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self.rate <= 0:
            return _LONG
        # Rounded: to wait for a billionth of a token would be a useless turn of the loop.
        return 0.0 if self._tokens > 0.999999 else (1.0 - self._tokens) / self.rate

    def take(self) -> bool:
        """Pass one item if the rate allows it."""
        if self.wait():
            return False
        self._tokens -= 1.0
        return True

    def available(self) -> int:
        """How many items may pass now."""
        self.wait()
        return int(self._tokens + 1e-6)  # as ``wait`` rounds

    def give_back(self) -> None:
        """Undo a ``take``: the item did not pass after all."""
        with self._lock:
            self._returned += 1

    def _take_returned(self) -> int:
        with self._lock:
            returned, self._returned = self._returned, 0
        return returned


class PeerRates:
    """Passes ``rate`` items a second of each peer, and at first one second's worth at once.

    A peer is what it is for ``PeerCounter``. It takes memory for a peer while that peer has used up a
    part of its rate, and for ``MOST`` peers at a time. Safe between threads.
    """

    MOST = 65_536
    """Peers to remember: above it the half that may pass soonest is forgotten."""

    def __init__(self, rate: float, now: Callable[[], float] = monotonic) -> None:
        self.rate = rate
        self._pause = 1.0 / rate
        self._credit = max(1.0, rate) * self._pause  # of one second, or of one item
        self._now = now
        self._empty_at: dict[bytes, float] = {}  # when all of a peer's items are paid for
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many peers are remembered."""
        return len(self._empty_at)

    def take(self, address: Any) -> bool:
        """Pass one item of that peer if its rate allows it. What has no network always passes."""
        key = key_of(address)
        if key is None:
            return True
        now = self._now()
        with self._lock:
            due = max(now, self._empty_at.get(key, now)) + self._pause
            if due - now > self._credit * 1.000001:
                return False
            if key not in self._empty_at and len(self._empty_at) >= self.MOST:
                self._forget(now)
            self._empty_at[key] = due
            return True

    def give_back(self, address: Any) -> None:
        """Undo a ``take``: the item did not pass after all."""
        key = key_of(address)
        with self._lock:
            if key in self._empty_at:
                self._empty_at[key] -= self._pause

    def _forget(self, now: float) -> None:
        left = sorted((due, key) for key, due in self._empty_at.items() if due > now)
        self._empty_at = {key: due for due, key in left[-self.MOST // 2 :]}


class PeerCounter:
    """Connections in progress by peer: an IPv4 address, or the /64 of an IPv6 address."""

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many peers have connections."""
        return len(self._counts)

    def count(self, address: Any) -> int:
        """How many connections the peer of that ``client_address`` has."""
        key = key_of(address)
        return self._counts.get(key, 0) if key is not None else 0

    def add(self, address: Any, most: float = inf) -> bool:
        """One more; false, and no more, if there are ``most`` already."""
        key = key_of(address)
        if key is None:
            return True
        with self._lock:
            count = self._counts.get(key, 0)
            if count >= most:
                return False
            self._counts[key] = count + 1
            return True

    def remove(self, address: Any) -> None:
        """Count one connection less; a peer without connections is removed."""
        key = key_of(address)
        if key is None:
            return
        with self._lock:
            left = self._counts.get(key, 0) - 1
            if left > 0:
                self._counts[key] = left
            else:
                self._counts.pop(key, None)


def key_of(address: Any) -> bytes | None:
    """What counts as one peer: an IPv4 address, or the /64 of an IPv6 address; ``None`` for others."""
    host = host_of(address)
    # RFC 6177: a site has at least a /64, so it could use a new address for each connection.
    return host[:8] if host is not None and len(host) == 16 else host
