"""Let threads and fibers wait for a change that another thread, or a signal handler, makes.

The life cycle of a server has one notifier: callers wait on it for the accept loop to end and for
requests to finish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Protocol

__all__ = ["Notified", "Notifier", "Waiter"]


class Notified(Protocol):
    """What is notified of each change."""

    def put(self, item: None) -> None:
        """Note a change, and end the wait for one. From any thread."""


class Waiter(Notified, Protocol):
    """The object that a caller waits on: a queue, or an object that parks a fiber."""

    def get(self, *, timeout: float | None) -> None:
        """Wait for ``put``; raises ``queue.Empty`` after ``timeout`` seconds."""


class Notifier:
    """Wakes every waiter to check its condition. Takes no lock: a signal handler may notify and wait.

    ``waiters`` is empty while no one waits: there is no one to notify.

    (``SimpleQueue.put`` is the one primitive documented as re-entrant. A ``Condition`` would deadlock
    if the signal arrived while its lock is held.)
    """

    def __init__(self) -> None:
        self.waiters: list[Notified] = []

    def notify(self) -> None:
        """Call after each change that a caller may wait for. Costs one test if there is no waiter."""
        if self.waiters:
            for waiter in tuple(self.waiters):
                waiter.put(None)

    @contextmanager
    def notifying(self, notified: Notified) -> Iterator[None]:
        """Call ``notified.put(None)`` at every notification, until the block ends."""
        self.waiters.append(notified)
        try:
            yield
        finally:
            self.waiters.remove(notified)

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
        with self.notifying(waiter):
            while not condition():
                end = deadline()
                if end is not None and monotonic() >= end:
                    return False
                with suppress(Empty):
                    waiter.get(timeout=None if end is None else max(0.0, end - monotonic()))
            return True
