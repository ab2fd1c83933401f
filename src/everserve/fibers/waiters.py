"""How fibers and threads wait for one another: waiters, and queues of them.

`sync` and the semaphores are built on it. It knows no engine: a caller passes the fiber that waits.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from everserve.fibers import threadwaits

__all__ = ["WaitQueue", "Waiter", "WaitingFiber", "wait_until"]


class WaitingFiber(Protocol):
    """What a wait needs of the fiber of either engine."""

    @property
    def hub(self) -> Any: ...

    def wake(self) -> None: ...


def wait_until(
    met: Callable[[], bool],
    callbacks: "list[Callable[[], object]]",
    timeout: float | None,
    fiber: WaitingFiber | None,
) -> bool:
    """Wait until `met()`, at most `timeout` seconds (None: for ever); False when it was not.

    `met` is called again whenever what this call adds to `callbacks` is called. `fiber` is the one
    that runs here; None: the thread itself waits.
    """
    notify, wait = _thread_wait() if fiber is None else (fiber.wake, fiber.hub.park)
    limit = None if timeout is None else time.monotonic() + timeout
    callbacks.append(notify)  # before the first test, so that no notification is lost
    try:
        while not met():
            left = None if limit is None else limit - time.monotonic()
            if left is not None and left <= 0:
                return False
            wait(left)
        return True
    finally:
        callbacks.remove(notify)


def _thread_wait() -> tuple[Callable[[], object], Callable[[float | None], object]]:
    """How a thread is notified, and how it waits for that."""
    notifier = threading.Event()
    return notifier.set, partial(threadwaits.wait, notifier)


class Waiter:
    """A fiber or a thread that waits for its turn."""

    __slots__ = ("_callbacks", "notified")

    def __init__(self) -> None:
        self.notified = False
        self._callbacks: list[Callable[[], object]] = []

    def notify(self) -> None:
        self.notified = True
        for callback in tuple(self._callbacks):
            callback()

    def wait(self, timeout: float | None, fiber: WaitingFiber | None) -> bool:
        """Wait to be notified, as `wait_until` does."""
        return wait_until(lambda: self.notified, self._callbacks, timeout, fiber)


class WaitQueue(deque[Waiter]):
    """Waiters, first come first served. The lock of its owner protects it."""

    __slots__ = ()

    def enter(self) -> Waiter:
        waiter = Waiter()
        self.append(waiter)
        return waiter

    def notify_next(self) -> bool:
        """Notify the first waiter; False when there is none."""
        if not self:
            return False
        self.popleft().notify()
        return True

    def leave(self, waiter: Waiter) -> bool:
        """Remove a waiter that gives up; False when it has been notified already."""
        if waiter.notified:
            return False
        self.remove(waiter)
        return True
