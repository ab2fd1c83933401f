"""`Semaphore`: at most so many at a time. `_semaphore.pyx` is the same, compiled."""

import threading

from everserve.fibers.scheduler import current
from everserve.fibers.waiters import Waiter, WaitQueue

__all__ = ["Semaphore"]


class Semaphore:
    """At most `value` holders at a time, first come first served. For fibers and for threads."""

    __slots__ = ("_lock", "_queue", "_value")

    def __init__(self, value: int = 1) -> None:
        if value < 0:
            raise ValueError(f"a semaphore cannot begin at {value}: give 0 or more")
        self._value = value
        self._lock = threading.Lock()
        self._queue = WaitQueue()

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take a place, waiting at most `timeout` seconds; False when there was none in time."""
        with self._lock:
            if self._value > 0:
                self._value -= 1
                return True
            if not blocking:
                return False
            waiter = self._queue.enter()
        try:
            if waiter.wait(timeout, current()):
                return True
        except BaseException:
            if not self._leave(waiter):
                self.release()
            raise
        return not self._leave(waiter)

    def release(self) -> None:
        """Give a place back, or pass it on to the first waiter."""
        with self._lock:
            if not self._queue.notify_next():
                self._value += 1

    def _leave(self, waiter: Waiter) -> bool:
        with self._lock:
            return self._queue.leave(waiter)

    def __enter__(self) -> bool:
        with self._lock:  # the fast path: each write of a TLS connection takes it
            if self._value > 0:
                self._value -= 1
                return True
        return self.acquire()

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            if not self._queue:
                self._value += 1
                return
        self.release()
