"""Let threads and fibers wait for a change that another thread, or a signal handler, makes.

The life cycle of a server has one notifier: callers wait on it for the accept loop to end and for
requests to finish.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Protocol

__all__ = ["Notifier", "Waiter"]


class Waiter(Protocol):
    """What a caller waits on: a queue, or something that parks a fiber."""

    def put(self, item: None) -> None:
        """End the wait. From any thread."""

    def get(self, *, timeout: float | None) -> None:
        """Wait for ``put``; raises ``queue.Empty`` after ``timeout`` seconds."""


class Notifier:
    """Wakes every waiter, so that it looks again. Takes no lock: a signal handler may notify and wait.

    (``SimpleQueue.put`` is the one primitive that is documented to be re-entrant; a ``Condition``
    would dead-lock when the signal comes while its lock is held.)
    """

    def __init__(self) -> None:
        self._waiters: list[Waiter] = []

    def notify(self) -> None:
        """Call after each change that a caller may wait for. Costs one test when no one waits."""
        if self._waiters:
            for waiter in tuple(self._waiters):
                waiter.put(None)

    def wait_until(
        self,
        condition: Callable[[], bool],
        deadline: Callable[[], float | None] = lambda: None,
        *,
        waiter: Waiter | None = None,
    ) -> bool:
        """Wait until ``condition()`` is true, asked at every notification; true if it was in time.

        ``deadline()`` gives a time of ``time.monotonic``, or ``None`` for no end; it is asked anew at
        every notification, so that it may be moved. ``waiter`` is what to wait on: a fiber brings its
        own.
        """
        if waiter is None:
            waiter = SimpleQueue()
        self._waiters.append(waiter)
        try:
            while not condition():
                end = deadline()
                if end is not None and monotonic() >= end:
                    return False
                with suppress(Empty):
                    waiter.get(timeout=None if end is None else max(0.0, end - monotonic()))
            return True
        finally:
            self._waiters.remove(waiter)
