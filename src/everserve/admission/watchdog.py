"""Deadlines for connections, without a timer for each and without a cost for each byte.

One thread for each server sleeps until the next deadline is due, and checks it. The kernel has counted
the bytes meanwhile (tcp(7), ``TCP_INFO``).
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
from time import monotonic
from typing import Protocol

from everserve.fibers.helperthreads import try_to_start
from everserve.fibers.log import logger

__all__ = ["Deadline", "Watchdog"]


RETRY = 1.0
"""Seconds after which a check that failed is repeated: a deadline must not be void for that."""


class Deadline(Protocol):
    """Something with a time: it is checked when that time comes."""

    def due(self, now: float) -> float | None:
        """Check, at the monotonic time ``now``. Returns the next time to check, ``None`` for never."""


class Watchdog:
    """Checks deadlines when they are due, in a thread that exists only while there are deadlines.

    ``watch`` and ``forget`` are O(log n) and may be called from any thread, also in a forked child,
    which starts without deadlines.
    """

    def __init__(self, name: str = "everserve-deadlines") -> None:
        self._name = name
        self._numbers = itertools.count()
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._heap: list[tuple[float, int]] = []
        self._watched: dict[Deadline, tuple[float, int]] = {}
        self._numbered: dict[int, Deadline] = {}  # of the heap's entries, without those forgotten
        # The lock of the condition: taking it directly is faster. Re-entrant, as the collector may
        # call ``close`` in the thread that has it.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._next = float("inf")
        self._closed = False
        self.lacks_thread = False  # the system had none left when it was needed

    def __len__(self) -> int:
        return len(self._watched)

    def watch(self, deadline: Deadline, when: float) -> None:
        """Check ``deadline`` at the monotonic time ``when``."""
        if self._process != os.getpid():
            self._reset()
        with self._lock:
            self._push(deadline, when)
            if self._thread is None:
                self._start()
            elif when < self._next:
                self._changed.notify()

    def forget(self, deadline: Deadline) -> None:
        """Stop checking it. A check that runs now is the last one."""
        if self._process == os.getpid():
            with self._lock:
                self._drop(deadline)
                if self._thread is None and self._watched:
                    self._start()  # the system had no thread left
                if self._closed and not self._watched:
                    self._changed.notify()
                if len(self._heap) > 64 and len(self._heap) > 2 * len(self._watched):
                    self._heap = list(self._watched.values())
                    heapq.heapify(self._heap)

    def retry(self) -> None:
        """Start the thread if it is lacking (``lacks_thread``): for what watches once for many."""
        with self._lock:
            if self._thread is None and self._watched:
                self._start()

    def close(self) -> None:
        """End the thread as soon as nothing is watched, not only at the time of the next entry.

        What connections share (``is_shared``) is checked at once: perhaps none of them is left.
        """
        if self._process == os.getpid():
            with self._changed:
                self._closed = True
                for deadline in tuple(self._watched):
                    if getattr(deadline, "is_shared", False):
                        self._push(deadline, 0.0)
                self._changed.notify()

    def _start(self) -> None:
        """Start the thread; if that fails, the next ``watch``, ``forget`` or ``retry`` tries again."""
        self._thread = try_to_start(self._run, name=self._name)
        self.lacks_thread = self._thread is None

    def _push(self, deadline: Deadline, when: float) -> None:
        self._drop(deadline)
        self._watched[deadline] = entry = (when, next(self._numbers))
        self._numbered[entry[1]] = deadline
        heapq.heappush(self._heap, entry)

    def _drop(self, deadline: Deadline) -> None:
        """Its entry stays in the heap, without the deadline, which would keep the connection alive."""
        entry = self._watched.pop(deadline, None)
        if entry is not None:
            del self._numbered[entry[1]]

    def _run(self) -> None:
        try:
            self._check_all()
        finally:
            with self._lock:
                if self._thread is threading.current_thread():
                    self._thread = None  # it failed: the next need starts another one

    def _check_all(self) -> None:
        while (deadline := self._next_due()) is not None:
            try:
                again = deadline.due(monotonic())
            except BaseException:  # a failure of one must not stop the checks of the others
                logger.exception("checking a deadline failed: %r", deadline)
                again = monotonic() + RETRY
            with self._changed:
                if deadline in self._watched:
                    if again is None:
                        self._drop(deadline)
                    else:
                        self._push(deadline, again)
            del deadline  # so that the wait for the next one does not keep it alive

    def _next_due(self) -> Deadline | None:
        """Wait until the next one is due. ``None`` if none is left: the thread then ends."""
        with self._changed:
            while self._heap:
                when, number = self._heap[0]
                deadline = self._numbered.get(number)
                if deadline is None:
                    heapq.heappop(self._heap)
                    continue
                pause = when - monotonic()
                if pause <= 0:
                    heapq.heappop(self._heap)
                    return deadline
                self._next = when
                del deadline
                self._changed.wait(pause)
                self._next = float("inf")
            self._thread = None
            return None
