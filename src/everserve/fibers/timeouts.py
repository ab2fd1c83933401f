"""`Timeout`: a block that raises when its time has passed, in a fiber or in a plain thread.

In a fiber the hub raises where the block waits. In a thread each wait of the block ends in time by
itself: those of `everserve.fibers`, and those of the socket that the thread serves.
"""

import socket
import time
from types import TracebackType
from typing import Any, NoReturn, Self

from everserve.errors import FiberTimeout
from everserve.fibers import engines, threadwaits

__all__ = ["Timeout"]


class Timeout:
    """`with Timeout(seconds):` raises a `FiberTimeout` in the block when they have passed.

    It is raised where the block waits. None sets no limit; blocks may be nested. `expired` is true
    afterwards if the time of this block has passed.

    In a plain thread it ends the waits of `everserve.fibers`, and the reads and writes of the request
    that the thread serves. What `offload` runs there goes on to its end, as it is a plain call.
    """

    __slots__ = ("_limited", "_limits_thread", "_timer", "ends", "expired", "seconds")

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.expired = False
        self.ends = 0.0
        self._timer: Any = None
        self._limits_thread = False
        self._limited: socket.socket | None = None

    def __enter__(self) -> Self:
        if self.seconds is None:
            return self
        self.ends = time.monotonic() + self.seconds
        fiber = engines.current()
        if fiber is None:
            self._limit_thread()
        else:
            self._timer = fiber.hub.call_at(self.ends, lambda: self._expire_in(fiber))
        return self

    def expire(self) -> NoReturn:
        """Raise the `FiberTimeout` of this block in its thread: once, as in a fiber."""
        self.expired = True
        self._release_thread()
        raise self._error()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._limits_thread:
            self._limits_thread = False
            self._release_thread()
            if self._limited is not None:
                self._limited.__class__ = socket.socket
                self._limited = None

    def _error(self) -> FiberTimeout:
        error = FiberTimeout(f"{self.seconds} seconds have passed")
        error.timeout = self
        return error

    def _expire_in(self, fiber: engines.Fiber) -> None:
        self.expired = True
        if fiber.has_pending_exception:  # of another block, say: raise this one after it
            self._timer = fiber.hub.call_at(time.monotonic(), lambda: self._expire_in(fiber))
        else:
            fiber.kill(self._error())

    def _limit_thread(self) -> None:
        here = threadwaits.here
        self._limits_thread = True
        here.limits = (*here.limits, self)
        request = None if here.request is None else threadwaits.plain_socket(here.request())
        if type(request) is socket.socket:
            request.__class__ = threadwaits.LimitedSocket
            self._limited = request

    def _release_thread(self) -> None:
        here = threadwaits.here
        here.limits = tuple(limit for limit in here.limits if limit is not self)
