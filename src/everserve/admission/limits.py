"""How many connections, and how fast: the counters that the accept loop checks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from everserve.admission.access import host_of

__all__ = ["PeerCounter", "TokenBucket"]

_LONG = 86_400.0
"""Seconds until the next check at a rate of 0: the rate may have been changed."""


class TokenBucket:
    """Passes ``rate`` items a second on average, and up to ``burst`` of them at once.

    For the accept loop alone: not safe between threads.
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

    def wait(self) -> float:
        """Seconds until the next item may pass; 0.0 for at once."""
        now = self._now()
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

    def give_back(self) -> None:
        """Undo a ``take``: the item did not pass after all."""
        self._tokens += 1.0  # ``wait`` keeps it below the burst


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
        key = self._key(address)
        return self._counts.get(key, 0) if key is not None else 0

    def add(self, address: Any) -> None:
        """One more."""
        key = self._key(address)
        if key is not None:
            with self._lock:
                self._counts[key] = self._counts.get(key, 0) + 1

    def remove(self, address: Any) -> None:
        """Count one connection less; a peer without connections is removed."""
        key = self._key(address)
        if key is None:
            return
        with self._lock:
            left = self._counts.get(key, 0) - 1
            if left > 0:
                self._counts[key] = left
            else:
                self._counts.pop(key, None)

    def _key(self, address: Any) -> bytes | None:
        host = host_of(address)
        # RFC 6177: a site has at least a /64, so it could use a new address for each connection.
        return host[:8] if host is not None and len(host) == 16 else host
