"""`Carrier`: a fiber that waits for a task of asyncio, and reads for it meanwhile.

It stands between a handler and its `async def handle`: around the task everything is as for any other
request in a fiber, its steps of admission, its errors, its end.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from everserve.errors import HubError
from everserve.fibers import engines
from everserve.fibers.exits import FiberExit

if TYPE_CHECKING:
    import asyncio

__all__ = ["Carrier"]

T = TypeVar("T")


class _TaskEnded(BaseException):
    """Ends what the fiber does for a task that has ended."""


class Carrier:
    """The fiber that made it. Raises `HubError` where no loop of asyncio turns the hub."""

    def __init__(self) -> None:
        fiber = engines.current()
        if fiber is None or fiber.hub.host is None:
            raise HubError("only a fiber on a loop of asyncio carries a task")
        self.host = fiber.hub.host
        self.hub = fiber.hub
        self._fiber = fiber
        self._work: Callable[[], object] | None = None
        self._is_working = False
        self._outcome: Any = None
        self._error: BaseException | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` as a task, and return what it returns; the fiber parks meanwhile.

        If the fiber is killed, the task is cancelled. If the task is, the fiber ends as if killed.
        """
        task = self.host.loop.create_task(self._contain(coroutine))
        task.add_done_callback(self._note_end)
        try:
            while not task.done():
                self._work_once()
        except BaseException:
            task.cancel()
            while not task.done():
                self._work_once()  # until it is killed again
            raise
        result: T = self._result(task)
        return result

    async def _contain(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Keep what a handler raises from the loop, which SystemExit would end."""
        try:
            self._outcome = await coroutine
        except self.host.cancelled_error:
            raise
        except BaseException as error:
            self._error = error

    def _result(self, task: asyncio.Task[None]) -> Any:
        error, self._error = self._error, None
        outcome, self._outcome = self._outcome, None
        try:
            if task.cancelled():
                raise FiberExit
            if error is not None:
                raise error
            return outcome
        finally:
            del error

    def _work_once(self) -> None:
        work, self._work = self._work, None
        if work is None:
            self.hub.park()
            return
        self._is_working = True
        try:
            work()
        except _TaskEnded:
            pass
        finally:
            self._is_working = False

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if self._is_working:
            self._fiber.kill(_TaskEnded)
        else:
            self._fiber.wake()
        self.host.schedule()

    # --- in the task -----------------------------------------------------------------------------

    def ask(self, work: Callable[[], object]) -> None:
        """Have the fiber call `work()`, which may wait, one at a time, and raises nothing."""
        self._work = work
        self._fiber.wake()
        self.host.schedule()

    async def call(self, function: Callable[[], T]) -> T:
        """Have the fiber call `function()`; wait for what it returns or raises."""
        ended: asyncio.Future[T] = self.host.loop.create_future()

        def work() -> None:
            try:
                result = function()
            except Exception as error:
                if not ended.done():
                    ended.set_exception(error)
            else:
                if not ended.done():
                    ended.set_result(result)

        self.ask(work)
        return await ended
