"""Counts what may happen at any rate, so that it is reported once a second, with the count."""

from __future__ import annotations

import threading

__all__ = ["REPORT_EVERY", "Tally"]

REPORT_EVERY = 1.0
"""Seconds between two reports of the same: anyone can send datagrams, in any number."""


class Tally:
    """Counts, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._reported = float("-inf")

    def add(self, now: float) -> int:
        """Count one more, at ``now`` (monotonic). Returns the count to report; 0: it is not due."""
        with self._lock:
            self._count += 1
            if now - self._reported < REPORT_EVERY:
                return 0
            count, self._count, self._reported = self._count, 0, now
            return count
