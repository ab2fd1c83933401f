"""Event, Semaphore, Queue and sleep: how fibers wait for one another and for time.

They stand above the hub of either engine. In an ordinary thread they block that thread: threads and
fibers may share them.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from everserve.fibers import engines, threadwaits
from everserve.fibers.engines import Semaphore
from everserve.fibers.waiters import Waiter, WaitQueue, wait_until

__all__ = ["Event", "Queue", "Semaphore", "sleep"]

T = TypeVar("T")


def sleep(seconds: float = 0.0) -> None:
    """Let the other fibers run for `seconds`; in an ordinary thread, wait as `time.sleep` does."""
    fiber = engines.current()
    if fiber is None:
        if threadwaits.may_end_early():
            wait_until(lambda: False, [], seconds, None)
        else:
            time.sleep(seconds)
        return
    if seconds <= 0:
        fiber.hub.yield_turn()
        return
    limit = time.monotonic() + seconds
    while (left := limit - time.monotonic()) > 0:
        fiber.hub.park(left)


class Event:
    """A flag to wait for. Every method may be called by fibers and by threads."""

    __slots__ = ("_flag", "_waiting")

    def __init__(self) -> None:
        self._flag = False
        self._waiting: list[Callable[[], object]] = []

    def is_set(self) -> bool:
        return self._flag

    def set(self) -> None:
        """Set the flag and wake all that wait for it."""
        self._flag = True
        for notify in tuple(self._waiting):
            notify()

    def clear(self) -> None:
        self._flag = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the flag, at most `timeout` seconds (None: for ever); True if it is set."""
        if self._flag:
            return True
        return wait_until(self.is_set, self._waiting, timeout, engines.current())


class Queue(Generic[T]):
    """A queue of items between fibers and threads; at most `maxsize` of them (0: any number).

    Raises `queue.Empty` and `queue.Full`, as `queue.Queue` does.
    """

    __slots__ = ("_getters", "_items", "_lock", "_putters", "maxsize")

    def __init__(self, maxsize: int = 0) -> None:
        self.maxsize = maxsize
        self._items: deque[T] = deque()
        self._lock = threading.Lock()
        self._getters = WaitQueue()
        self._putters = WaitQueue()

    def qsize(self) -> int:
        return len(self._items)

    def empty(self) -> bool:
        return not self._items

    def full(self) -> bool:
        return 0 < self.maxsize <= len(self._items)

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Append `item`, waiting at most `timeout` seconds for room."""
        limit = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                if not self.full():
                    self._items.append(item)
                    self._getters.notify_next()
                    return
                if not block:
                    raise queue.Full
                waiter = self._putters.enter()
            if not self._wait(self._putters, waiter, limit):
                raise queue.Full

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the first item, waiting at most `timeout` seconds for one."""
        limit = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                if self._items:
                    item = self._items.popleft()
                    self._putters.notify_next()
                    return item
                if not block:
                    raise queue.Empty
                waiter = self._getters.enter()
            if not self._wait(self._getters, waiter, limit):
                raise queue.Empty

    def put_nowait(self, item: T) -> None:
        self.put(item, block=False)

    def get_nowait(self) -> T:
        return self.get(block=False)

    def _wait(self, waiters: WaitQueue, waiter: Waiter, limit: float | None) -> bool:
        """Wait to be notified; a waiter that gives up too late passes its notification on."""
        left = None if limit is None else limit - time.monotonic()
        try:
            if waiter.wait(left, engines.current()):
                return True
        except BaseException:
            with self._lock:
                if not waiters.leave(waiter):
                    waiters.notify_next()
            raise
        with self._lock:
            return not waiters.leave(waiter)
