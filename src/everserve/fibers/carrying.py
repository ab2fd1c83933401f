# cython: binding=False, annotation_typing=False
"""`Carrier`: a fiber that runs coroutines of a task of asyncio, and waits and reads for them.

It stands between a handler and its `async def handle`: around the coroutine everything is as for any
other request in a fiber, its steps of admission, its errors, its end. The fiber takes the steps of the
coroutine itself: a task of its own would cost a future, a call of the loop and a switch for each read.
The task that the coroutine finds as `asyncio.current_task()` stands in for it; it waits, and passes on
that it was cancelled.
One source for both engines: `_carrying` is this file, compiled, with the types of `_carrying.pxd`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any

from everserve.errors import HandlerError, HubError
from everserve.fibers import engines
from everserve.fibers.exits import FiberExit

__all__ = ["Carrier", "carrier_for", "run_coroutine"]


class _Interrupted(BaseException):
    """Ends what the fiber does for a task that was cancelled."""


class Carrier:
    """The fiber that made it. Raises `HubError` where no loop of asyncio turns the hub.

    `asked`: what the coroutine has the fiber do: it sets this and yields the carrier. `is_stepping`:
    the coroutine runs; what it writes meanwhile is sent when it waits.
    """

    __slots__ = (
        "_awaited",
        "_dirty",
        "_enter",
        "_fiber",
        "_is_over",
        "_is_working",
        "_leave",
        "_loop",
        "_must_cancel",
        "_passed",
        "_stop",
        "asked",
        "host",
        "hub",
        "is_stepping",
        "task",
    )

    def __init__(self) -> None:
        fiber: Any = engines.current()
        if fiber is None or fiber.hub.host is None:
            raise HubError("only a fiber on a loop of asyncio carries a task")
        self.host: Any = fiber.hub.host
        self.hub: Any = fiber.hub
        self.task: Any = None
        self.asked: Callable[[], object] | None = None
        self.is_stepping = False
        self._fiber = fiber
        self._loop = self.host.loop
        self._enter = self.host.enter_task
        self._leave = self.host.leave_task
        self._dirty: list[Any] = []
        self._stop: Any = None  # the future that the task waits for
        self._passed: Any = None  # the one whose cancelling has reached the coroutine
        self._awaited: Any = None  # the future that the coroutine waits for
        self._must_cancel = False
        self._is_working = False
        self._is_over = False

    # --- in the fiber ----------------------------------------------------------------------------

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run `coroutine` as a task, and return what it returns."""
        try:
            return self.drive(coroutine)
        finally:
            self.end()

    def drive(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run `coroutine` in the task that there is, or a new one, which goes on until `end()`.

        If the fiber is killed, the coroutine is cancelled. If the task is, the fiber ends as if killed.
        """
        error: BaseException | None = None
        killed: BaseException | None = None
        if self.task is None:
            self._begin(coroutine)
        send = coroutine.send
        while True:
            if self._must_cancel or (self._stop.cancelled() and self._stop is not self._passed):
                error = self._take_cancel()
            try:
                asked = self._step(send if error is None else coroutine.throw, error)
            except StopIteration as stop:
                if killed is None:
                    return stop.value
                raise killed from None
            except self.host.cancelled_error:
                self._is_over = True
                raise (killed or FiberExit()) from None
            try:
                error = self._wait(asked)
            except BaseException as exit_of_fiber:
                if killed is not None:
                    coroutine.close()
                    raise
                killed = exit_of_fiber
                error = self.host.cancelled_error()

    def _begin(self, coroutine: Any) -> None:
        loop = self._loop
        self._is_over = False
        self._stop = loop.create_future()
        self.task = loop.create_task(self._stand_in(), name=coroutine.__qualname__)
        self.task.add_done_callback(self._note_end)

    def end(self) -> None:
        """End the task."""
        task, self.task = self.task, None
        if task is not None and not self._stop.done():
            if self._is_over:
                self._stop.cancel()
            else:
                self._is_over = True
                self._stop.set_result(None)

    def _step(self, resume: Any, argument: Any) -> Any:
        """Have the coroutine run until it waits: what it yields."""
        outer = None
        try:
            self._enter(self._loop, self.task)
        except RuntimeError:
            outer = self.host.enter_beside(self.task)
        self.is_stepping = True
        try:
            return self.hub.call_outside(resume, argument)
        finally:
            self.is_stepping = False
            self._leave(self._loop, self.task)
            if outer is not None:
                self._enter(self._loop, outer)
            if self._dirty:
                self._send()

    def _send(self) -> None:
        dirty, self._dirty = self._dirty, []
        for writer in dirty:
            writer.send()

    def _wait(self, asked: Any) -> BaseException | None:
        """Do or await what the coroutine has yielded; what is to be raised in it, if anything."""
        if asked is self:
            self._work()
            return None
        if asked is None:  # asyncio.sleep(0)
            self._loop.call_soon(self._wake)
            self.hub.park()
            return None
        if getattr(asked, "_asyncio_future_blocking", None):
            asked._asyncio_future_blocking = False
            if asked.get_loop() is self._loop and asked is not self.task:
                return self._await(asked)
        return RuntimeError(f"a task cannot wait for {asked!r} here")

    def _work(self) -> None:
        work, self.asked = self.asked, None
        self._is_working = True
        try:
            if work is not None:
                work()
        except _Interrupted:
            pass
        finally:
            self._is_working = False

    def _await(self, future: Any) -> BaseException | None:
        self._awaited = future
        future.add_done_callback(self._wake)
        try:
            while not future.done():
                self.hub.park()
        except BaseException:
            future.remove_done_callback(self._wake)
            future.add_done_callback(_retrieve)  # no one else asks for its error
            future.cancel()
            raise
        finally:
            self._awaited = None
        try:
            future.result()
        except BaseException as error:
            return error
        return None

    def _take_cancel(self) -> BaseException:
        self._must_cancel = False
        self._passed = self._stop
        error: BaseException = self.host.cancelled_error()
        return error

    # --- in the loop -----------------------------------------------------------------------------

    def _wake(self, _future: Any = None) -> None:
        self._fiber.wake()
        self.host.schedule()

    async def _stand_in(self) -> None:
        """The task: it waits until the fiber ends it."""
        while True:
            stop = self._stop
            try:
                await stop
            except self.host.cancelled_error:
                if self._is_over:
                    raise
                self._stop = self._loop.create_future()
                if stop is not self._passed:
                    self._cancel()
            else:
                return

    def _note_end(self, task: Any) -> None:
        """It was cancelled before its first step, by the coroutine itself."""
        if not self._is_over and task is self.task:
            self._cancel()

    def _cancel(self) -> None:
        """Pass on to the coroutine, which waits for something, that the task was cancelled."""
        future = self._awaited
        if future is not None and future.cancel():
            return
        self._must_cancel = True
        if self._is_working:
            self._fiber.kill(_Interrupted())
            self.host.schedule()

    # --- for the files of a handler ----------------------------------------------------------------

    def is_own(self) -> bool:
        """True in the coroutine, and not in another task that it has started."""
        return self.is_stepping and self.host.current_task(self._loop) is self.task

    def send_soon(self, writer: Any) -> None:
        """Call `writer.send()` when the task that runs waits."""
        if self.is_stepping:
            self._dirty.append(writer)
        else:
            self.host.send_soon(writer)

    def spawn(self, function: Callable[[], object]) -> Any:
        """Have another fiber call `function()`, for another task."""
        fiber = self.hub.spawn(function)
        self.host.schedule()
        return fiber


def _retrieve(future: Any) -> None:
    if not future.cancelled():
        future.exception()


def carrier_for(coroutine: Any, hook: str) -> Carrier:
    """The carrier for what the hook of a handler returned. Raises `HandlerError` where none can be."""
    try:
        return Carrier()
    except HubError as error:
        coroutine.close()
        raise HandlerError(
            f"{hook}() is 'async def', and nothing awaits it:"
            " use concurrency='asyncio', or AsyncMixIn"
        ) from error


def run_coroutine(result: Any, hook: str) -> Any:
    """Run what the hook of a handler returned, if that is a coroutine; what it returns, or `result`."""
    if type(result) is not CoroutineType:
        return result
    return carrier_for(result, hook).run(result)
