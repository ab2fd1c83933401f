# cython: binding=False, annotation_typing=False
"""`Semaphore`: at most so many at a time.

One source for both engines: `_semaphore` is this file, compiled, with the types of `_semaphore.pxd`.
"""

import importlib
import threading
from collections.abc import Callable
from typing import Any

from everserve.fibers.waiters import Waiter, WaitingFiber

__all__ = ["Semaphore"]

COMPILED = __name__ == "everserve.fibers._semaphore"

current: Callable[[], WaitingFiber | None] = importlib.import_module(
    "everserve.fibers._hub" if COMPILED else "everserve.fibers.hub"
).current


class Semaphore:
    """At most `value` holders at a time, first come first served. For fibers and for threads.

    What changes it is a function below the class. In C no other thread runs while one does, as the
    change is complete before any Python code runs; in Python a lock is held.
    """

    __slots__ = ("_lock", "_queue", "_value")

    def __init__(self, value: int = 1) -> None:
        if value < 0:
            raise ValueError(f"a semaphore cannot begin at {value}: give 0 or more")
        self._value = value
        self._queue: list[Waiter] = []  # first come first served; a deque would take 0.6 KB
        self._lock: Any = None if COMPILED else threading.Lock()

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take a place, waiting at most `timeout` seconds; False when there was none in time."""
        if self._take(None):
            return True
        if not blocking:
            return False
        waiter = Waiter()
        if self._take(waiter):  # making the waiter may have let another thread run
            return True
        try:
            if waiter.wait(timeout, current()):
                return True
        except BaseException:
            if not self._leave(waiter):
                self._give()
            raise
        return not self._leave(waiter)

    def release(self) -> None:
        """Give a place back, or pass it on to the first waiter."""
        self._give()

    def __enter__(self) -> bool:
        return True if self._take(None) else self.acquire()

    def __exit__(self, *_error: object) -> None:
        self._give()

    # --- the steps -------------------------------------------------------------------------------

    def _take(self, waiter: Waiter | None) -> bool:
        """Take a place if there is one; if not, put `waiter` into the queue."""
        if COMPILED:
            return _take(self, waiter)
        with self._lock:
            return _take(self, waiter)

    def _give(self) -> bool:
        """Pass a place on to the first waiter, and return True; or else put it back."""
        if COMPILED:
            return _give(self)
        with self._lock:
            return _give(self)

    def _leave(self, waiter: Waiter) -> bool:
        """Remove a waiter that gives up; False when it has been notified already."""
        if COMPILED:
            return _leave(self, waiter)
        with self._lock:
            return _leave(self, waiter)


def _take(semaphore: Semaphore, waiter: Waiter | None) -> bool:
    if semaphore._value > 0:
        semaphore._value -= 1
        return True
    if waiter is not None:
        semaphore._queue.append(waiter)
    return False


def _give(semaphore: Semaphore) -> bool:
    if not semaphore._queue:
        semaphore._value += 1
        return False
    waiter = semaphore._queue.pop(0)
    waiter.notified = True  # before another thread can run, and give up
    waiter.notify()
    return True


def _leave(semaphore: Semaphore, waiter: Waiter) -> bool:
    if waiter.notified:
        return False
    semaphore._queue.remove(waiter)
    return True
