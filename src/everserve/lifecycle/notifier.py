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
    """The object that a caller waits on: a queue, or an object that parks a fiber."""

    def put(self, item: None) -> None:
        """End the wait. From any thread."""

    def get(self, *, timeout: float | None) -> None:
        """Wait for ``put``; raises ``queue.Empty`` after ``timeout`` seconds."""


class Notifier:
    """Wakes every waiter to check its condition. Takes no lock: a signal handler may notify and wait.

    (``SimpleQueue.put`` is the one primitive documented as re-entrant. A ``Condition`` would deadlock
    if the signal arrived while its lock is held.)
    """

    def __init__(self) -> None:
        self._waiters: list[Waiter] = []

    def notify(self) -> None:
        """Call after each change that a caller may wait for. Costs one test if there is no waiter."""
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
        """Wait until ``condition()`` is true. False if ``deadline()`` passed before.

        Both are called again at every notification, so the deadline may move. It is a time of
        ``time.monotonic``, or ``None`` for no end. ``waiter`` is the object to wait on: a fiber passes
        its own.
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
