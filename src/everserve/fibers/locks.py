"""Lock, RLock and Condition: those of `threading`, whose waits park a fiber instead of its loop.

They stand beside Event and Semaphore: fibers, threads and the handlers of any strategy may share them.
"""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from everserve.fibers import engines, threadwaits
from everserve.fibers.exits import FiberExit
from everserve.fibers.waiters import WaitQueue

__all__ = ["Condition", "Lock", "RLock"]

_NO_LIMIT: Final = -1.0  # the timeout of `threading` for "for ever"


def _caller() -> Any:
    """What holds a lock that is acquired here: the fiber, or else the thread."""
    fiber = engines.current()
    return threading.get_ident() if fiber is None else fiber


class Lock:
    """Held by one at a time, first come first served. It may be held while its holder waits.

    As of a `threading.Lock`, anyone may release it.
    """

    __slots__ = ("_holder", "_place")

    def __init__(self) -> None:
        self._place = engines.Semaphore(1)
        self._holder: Any = None

    def acquire(self, blocking: bool = True, timeout: float | None = _NO_LIMIT) -> bool:
        """Take the lock, waiting at most `timeout` seconds (-1 or None: for ever); True if taken."""
        if not self._place.acquire(blocking, _limit(blocking, timeout)):
            return False
        self._holder = _caller()
        return True

    def release(self) -> None:
        """Let the next one have it. Raises `RuntimeError` if no one holds it."""
        if self._holder is None:
            raise RuntimeError("release unlocked lock")
        self._holder = None
        self._place.release()

    def locked(self) -> bool:
        """Whether it is held."""
        if self._place.acquire(False):
            self._place.release()
            return False
        return True

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_error: object) -> None:
        self.release()

    def __repr__(self) -> str:
        state = "unlocked" if self._holder is None else f"held by {self._holder!r}"
        return f"<{type(self).__name__} {state} at {id(self):#x}>"

    # --- for a Condition -------------------------------------------------------------------------

    def _is_owned(self) -> bool:
        return self.locked()

    def _release_save(self) -> int:
        self.release()
        return 1

    def _acquire_restore(self, count: int) -> None:
        self.acquire()


class RLock(Lock):
    """A lock that its holder, a fiber or a thread, may take again. Only the holder may release it."""

    __slots__ = ("_count",)

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float | None = _NO_LIMIT) -> bool:
        """Take the lock, as `Lock.acquire`; at once if the caller holds it."""
        if not self._is_owned() and not super().acquire(blocking, timeout):
            return False
        self._count += 1
        return True

    def release(self) -> None:
        """Undo one `acquire`. Raises `RuntimeError` if the caller does not hold it."""
        if not self._is_owned():
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if not self._count:
            super().release()

    def _is_owned(self) -> bool:
        return bool(self._holder == _caller())

    def _release_save(self) -> int:
        count, self._count = self._count, 0
        super().release()
        return count

    def _acquire_restore(self, count: int) -> None:
        super().acquire()
        self._count = count


class Condition:
    """Wait for a change that another fiber or thread makes while it holds the same lock.

    `lock` is a `Lock` or an `RLock` of this module (default: a new `RLock`).
    """

    __slots__ = ("_lock", "_waiting")

    def __init__(self, lock: Lock | None = None) -> None:
        if lock is not None and not isinstance(lock, Lock):
            raise TypeError(f"a Condition needs a Lock or RLock of everserve.fibers, not {lock!r}")
        self._lock = RLock() if lock is None else lock
        self._waiting = WaitQueue()

    def acquire(self, blocking: bool = True, timeout: float | None = _NO_LIMIT) -> bool:
        """Take the lock."""
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A fiber that was killed while it waited to have the lock back does not hold it.
        if not isinstance(error, FiberExit) or self._lock._is_owned():
            self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, wait for a notification, take the lock again.

        False when `timeout` seconds (None: for ever) have passed before. Raises `RuntimeError` if the
        caller does not hold the lock.
        """
        self._expect_owned("wait on")
        waiter = self._waiting.enter()
        count = self._lock._release_save()
        try:
            waiter.wait(timeout, engines.current())
        except BaseException:
            try:
                self._take_back(count)
            finally:
                if not self._waiting.leave(waiter):
                    self._waiting.notify_next()  # it was meant for one that goes on
            raise
        self._take_back(count)
        return not self._waiting.leave(waiter)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until `predicate()` is true, at most `timeout` seconds; returns its last value."""
        limit = None if timeout is None else time.monotonic() + timeout
        while not (value := predicate()):
            left = None if limit is None else limit - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return value

    def notify(self, n: int = 1) -> None:
        """Wake `n` of those that wait, the first first. The caller holds the lock."""
        self._expect_owned("notify on")
        for _ in range(n):
            if not self._waiting.notify_next():
                break

    def notify_all(self) -> None:
        """Wake all that wait. The caller holds the lock."""
        self.notify(len(self._waiting))

    def _take_back(self, count: int) -> None:
        """Take the lock again, also where a `Timeout` around the wait expires meanwhile."""
        late: BaseException | None = None
        with threadwaits.unlimited():
            while True:
                try:
                    self._lock._acquire_restore(count)
                    break
                except FiberExit:
                    raise
                except BaseException as error:
                    late = error
        if late is not None:
            raise late

    def _expect_owned(self, what: str) -> None:
        if not self._lock._is_owned():
            raise RuntimeError(f"cannot {what} un-acquired lock")


def _limit(blocking: bool, timeout: float | None) -> float | None:
    """The timeout of `threading`, checked as there, as the one of this package."""
    if timeout is None or timeout == _NO_LIMIT:
        return None
    if not blocking:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if timeout < 0:
        raise ValueError("timeout value must be a non-negative number")
    return timeout
