"""How fibers and threads wait for one another: in a line, with tickets.

What `sync` and the semaphores are made of; nothing here knows what is waited for.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

from everserve.fibers import engine

__all__ = ["Line", "Ticket", "wait_until"]


def wait_until(
    met: Callable[[], bool], callbacks: "list[Callable[[], object]]", timeout: float | None
) -> bool:
    """Wait until `met()`, which is asked again whenever one's entry in `callbacks` is called."""
    fiber = engine.current()
    bell = None if fiber is not None else threading.Event()
    told = fiber.wake if fiber is not None else bell.set  # type: ignore[union-attr]
    limit = None if timeout is None else time.monotonic() + timeout
    callbacks.append(told)  # before the first question: what comes between is not lost
    try:
        while not met():
            left = None if limit is None else limit - time.monotonic()
            if left is not None and left <= 0:
                return False
            if fiber is not None:
                fiber.hub.park(left)
            elif bell is not None:
                bell.wait(left)
                bell.clear()
        return True
    finally:
        callbacks.remove(told)


class Ticket:
    """A place in a line, with the way to tell who stands there."""

    __slots__ = ("_callbacks", "called")

    def __init__(self) -> None:
        self.called = False
        self._callbacks: list[Callable[[], object]] = []

    def call(self) -> None:
        self.called = True
        for told in tuple(self._callbacks):
            told()

    def wait(self, timeout: float | None) -> bool:
        return wait_until(lambda: self.called, self._callbacks, timeout)


class Line(deque[Ticket]):
    """Those who wait, first come first served. Its owner's lock protects it."""

    __slots__ = ()

    def enter(self) -> Ticket:
        ticket = Ticket()
        self.append(ticket)
        return ticket

    def call_next(self) -> bool:
        """Call the first; say whether there was one."""
        if not self:
            return False
        self.popleft().call()
        return True

    def leave(self, ticket: Ticket) -> bool:
        """Give up waiting; False for one that had been called already."""
        if ticket.called:
            return False
        self.remove(ticket)
        return True
