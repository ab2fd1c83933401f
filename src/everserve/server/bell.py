"""Let threads wait for a change that another thread, or a signal handler, makes.

The life cycle of a server waits on one bell: for the accept loop to end, for requests to finish.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Protocol

__all__ = ["Bell", "Inbox"]


class Inbox(Protocol):
    """What a waiter waits on: a queue, or something that parks a fiber."""

    def put(self, item: None) -> None:
        """End the wait. From any thread."""

    def get(self, *, timeout: float | None) -> None:
        """Wait for ``put``; raises ``queue.Empty`` after ``timeout`` seconds."""


class Bell:
    """Wakes all who wait, so that they look again. Takes no lock: a signal handler may ring and wait.

    (``SimpleQueue.put`` is the one primitive that is documented to be re-entrant; a ``Condition``
    would dead-lock when the signal comes while its lock is held.)
    """

    def __init__(self) -> None:
        self._listeners: list[Inbox] = []

    def ring(self) -> None:
        """Call after each change that somebody may wait for. Costs one test when nobody does."""
        if self._listeners:
            for inbox in tuple(self._listeners):
                inbox.put(None)

    def wait_until(
        self,
        condition: Callable[[], bool],
        deadline: Callable[[], float | None] = lambda: None,
        *,
        inbox: Inbox | None = None,
    ) -> bool:
        """Wait until ``condition()`` holds, asked at every ring; true if it did in time.

        ``deadline()`` gives a time of ``time.monotonic``, or ``None`` for no end; it is asked anew at
        every ring, so that it may be moved. The caller may bring its own ``inbox``, a fiber's say.
        """
        if inbox is None:
            inbox = SimpleQueue()
        self.listen(inbox)
        try:
            while not condition():
                end = deadline()
                if end is not None and monotonic() >= end:
                    return False
                try:
                    inbox.get(timeout=None if end is None else max(0.0, end - monotonic()))
                except Empty:
                    pass
            return True
        finally:
            self.forget(inbox)

    def listen(self, inbox: Inbox) -> None:
        """Put something into ``inbox`` at every ring from now on."""
        self._listeners.append(inbox)

    def forget(self, inbox: Inbox) -> None:
        """Put nothing into ``inbox`` any more; once more does no harm."""
        with suppress(ValueError):
            self._listeners.remove(inbox)
