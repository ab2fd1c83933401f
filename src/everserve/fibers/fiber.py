"""The fiber: a function that runs on a hub and may park; a timer; and what a fiber may buffer.

It stands between the loop, whose task it is, and the scheduler, which runs it; `_fiber.pyx` is the
same, compiled.
"""

import contextvars
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import greenlet

from everserve.fibers.exits import FiberExit, began_in_signal_handler
from everserve.fibers.loop import DONE, FOREVER, IDLE, PARKED, READY, RUNNING, Loop, Task

__all__ = ["Buffered", "Fiber", "Timer"]

_NAMES: Final = {IDLE: "idle", PARKED: "parked", READY: "ready", RUNNING: "running", DONE: "dead"}


class Buffered:
    """Something that buffers bytes until its fiber waits."""

    __slots__ = ()

    def flush_quietly(self) -> bool:
        """Send what is buffered; True when that had to wait. Errors of the peer are kept for later."""
        raise NotImplementedError


class Timer(Task):
    """A callback that the hub calls at a given time."""

    __slots__ = ("_callback", "_loop")

    def __init__(self, loop: Loop, callback: Callable[[], object]) -> None:
        super().__init__()
        self._loop = loop
        self._callback: Callable[[], object] | None = callback

    def fire(self, loop: Loop, now: float) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    def cancel(self) -> None:
        """Take the callback back; nothing happens if it has been called."""
        self._callback = None
        self._loop.disarm(self)


class Fiber(Task):
    """A function that runs on a hub and may park. Made by `Hub.spawn`."""

    __slots__ = (
        "__weakref__",
        "arguments",
        "begun",
        "buffered",
        "context",
        "function",
        "greenlet",
        "hub",
        "joiners",
        "late",
        "limit",
        "pending_exception",
    )

    def __init__(
        self, hub: Any, function: Callable[..., object], arguments: tuple[Any, ...]
    ) -> None:
        super().__init__()
        self.hub = hub
        self.function = function
        self.arguments = arguments
        self.context: contextvars.Context | None = contextvars.copy_context()
        self.greenlet: greenlet.greenlet | None = None
        self.begun = False
        self.buffered: list[Buffered] = []  # the writers to flush when it next waits
        self.pending_exception: BaseException | None = None  # raised in it when it resumes
        self.joiners: list[Callable[[], object]] = []
        self.limit = FOREVER  # when its present wait ends
        self.late = False  # that time has passed
        self.state = PARKED

    def __repr__(self) -> str:
        return f"<Fiber {self.name} {_NAMES[self.state]} at {id(self):#x}>"

    @property
    def name(self) -> str:
        return getattr(self.function, "__qualname__", "?")

    @property
    def dead(self) -> bool:
        """Whether it has ended, its `finally` blocks included."""
        return self.state == DONE

    @property
    def has_pending_exception(self) -> bool:
        """Whether an exception will be raised in it when it resumes."""
        return self.pending_exception is not None

    @property
    def parked(self) -> bool:
        """Whether it waits for something."""
        return self.state == PARKED

    @property
    def frame(self) -> FrameType | None:
        """The Python frame where it is parked; None if it runs, or has not begun."""
        return None if self.greenlet is None else self.greenlet.gr_frame

    def fire(self, loop: Loop, now: float) -> None:
        if self.state != PARKED or self.limit == FOREVER:
            return
        if self.limit > now:
            loop.arm(self, self.limit)
        else:
            self.late = True
            loop.push(self)

    def add_buffered(self, writer: Buffered) -> None:
        """Have `writer` flushed when this fiber next waits."""
        self.buffered.append(writer)

    def drop_buffered(self, writer: Buffered) -> None:
        """Undo `add_buffered`, where it has nothing left to send."""
        if writer in self.buffered:
            self.buffered.remove(writer)

    def flush_buffered(self) -> bool:
        """Send what it has buffered; True when that had to wait."""
        waited = False
        while self.buffered:
            waited |= self.buffered.pop(0).flush_quietly()
        return waited

    def raise_pending(self) -> None:
        """Raise the pending exception, if there is one, in the fiber that has just resumed."""
        if self.pending_exception is not None:
            error, self.pending_exception = self.pending_exception, None
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame: break the cycle

    def execute(self) -> None:
        """Run the function; no exception of it leaves this method."""
        try:
            self.function(*self.arguments)
        except BaseException as error:
            self.handle_error(error)
        while self.buffered:
            self.flush_last()
        self.finish()

    def handle_error(self, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt) or began_in_signal_handler(error):
            self.hub.escaped = error
        elif isinstance(error, FiberExit | SystemExit):
            return  # ends this fiber only, as it would end a thread only
        else:
            self.hub.report(self, error)

    def flush_last(self) -> None:
        """Send what is buffered at the end of the fiber; a kill drops the stream that is waiting."""
        try:
            self.flush_buffered()
        except BaseException as error:
            self.handle_error(error)

    def finish(self) -> None:
        """Mark the fiber dead, and notify what waits for its end."""
        self.state = DONE
        self.arguments = ()
        self.greenlet = self.context = self.pending_exception = None
        self.buffered = []
        self.hub.loop.disarm(self)
        self.hub.alive.discard(self)
        joiners, self.joiners = self.joiners, []
        for callback in joiners:
            callback()

    def wake(self) -> None:
        """Make it ready to run if it is parked. For any thread; its park may end early."""
        if self.hub.is_here():
            self.hub.loop.push(self)
        else:
            self.hub.call_from_thread(self.wake)

    def kill(self, exc: BaseException | type[BaseException] | None = None) -> None:
        """Raise `exc` (default: a `FiberExit`) where the fiber is parked. For any thread.

        A fiber that has not begun never begins; a dead one stays dead; in the running one, `exc`
        is raised from this call.
        """
        if self.state == DONE:
            return
        if not self.hub.is_here():
            self.hub.call_from_thread(self.kill, exc)
            return
        error = FiberExit() if exc is None else exc() if isinstance(exc, type) else exc
        if self is self.hub.running:
            raise error
        if not isinstance(self.pending_exception, FiberExit):
            self.pending_exception = error
        self.hub.loop.push(self)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it is dead, at most `timeout` seconds (None: for ever); True if it is."""
        return self.dead or self.hub.await_end(self, timeout)

    def on_end(self, callback: Callable[[], object]) -> None:
        """Call `callback()` in the hub's thread when the fiber has ended; at once if it has."""
        if self.dead:
            callback()
        else:
            self.joiners.append(callback)

    def remove_on_end(self, callback: Callable[[], object]) -> None:
        """Undo `on_end`."""
        if callback in self.joiners:
            self.joiners.remove(callback)
