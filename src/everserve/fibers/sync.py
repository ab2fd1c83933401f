"""Event, Semaphore, Queue, Timeout and sleep: how fibers wait for one another and for time.

They stand above the hub of either engine. In an ordinary thread they block that thread: threads and
fibers may share them.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, TypeVarTuple

from everserve.errors import FiberTimeout, HubError
from everserve.fibers import engines
from everserve.fibers.engines import Semaphore
from everserve.fibers.waiters import Waiter, WaitQueue, wait_until

__all__ = ["Event", "Queue", "Semaphore", "Timeout", "sleep", "spawn"]

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


def spawn(function: Callable[[*Arguments], object], /, *arguments: *Arguments) -> engines.Fiber:
    """Run `function(*arguments)` as a fiber of the hub that runs in this thread."""
    fiber = engines.current()
    hub = engines.turning_hub() if fiber is None else fiber.hub
    if hub is None:
        raise HubError("no hub runs in this thread: use hub.spawn(), or a server with fibers")
    spawned: engines.Fiber = hub.spawn(function, *arguments)
    return spawned


def sleep(seconds: float = 0.0) -> None:
    """Let the other fibers run for `seconds`; in an ordinary thread, `time.sleep`."""
    fiber = engines.current()
    if fiber is None:
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


class Timeout:
    """`with Timeout(seconds):` raises a `FiberTimeout` in the block when they have passed.

    None sets no limit. Works in a fiber only; blocks may be nested. `expired` is true afterwards if
    the time of this block has passed.
    """

    __slots__ = ("_timer", "expired", "seconds")

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.expired = False
        self._timer: Any = None

    def __enter__(self) -> Self:
        fiber = engines.current()
        if fiber is None:
            raise HubError("a Timeout works in a fiber only: use settimeout() elsewhere")
        if self.seconds is not None:
            when = time.monotonic() + self.seconds
            self._timer = fiber.hub.call_at(when, lambda: self._expire(fiber))
        return self

    def _expire(self, fiber: engines.Fiber) -> None:
        self.expired = True
        if fiber.has_pending_exception:  # of another block, say: raise this one after it
            self._timer = fiber.hub.call_at(time.monotonic(), lambda: self._expire(fiber))
            return
        error = FiberTimeout(f"{self.seconds} seconds have passed")
        error.timeout = self
        fiber.kill(error)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
