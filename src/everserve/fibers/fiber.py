"""The fiber: a function that runs on a hub and may park; and what a fiber may hold back.

It stands between the loop, whose task it is, and the switchboard, which runs it; `_fiber.pyx` is the
same, compiled.
"""

import contextvars
from collections.abc import Callable
from typing import Any, Final

import greenlet

from everserve.fibers.exits import FiberExit
from everserve.fibers.loop import DONE, FOREVER, IDLE, PARKED, READY, RUNNING, Loop, Task

__all__ = ["Corked", "Fiber", "Timer"]

_NAMES: Final = {IDLE: "idle", PARKED: "parked", READY: "ready", RUNNING: "running", DONE: "dead"}


class Corked:
    """Something that holds bytes back until its fiber waits."""

    __slots__ = ()

    def settle(self) -> bool:
        """Send what is held; True when that had to wait. Keeps the peer's errors to itself."""
        return bool(self.send_pending())

    def send_pending(self) -> bool:
        raise NotImplementedError


class Timer(Task):
    """A callback at a time, run by the hub."""

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
        """Make it never fire; fine when it has."""
        self._callback = None
        self._loop.disarm(self)


class Fiber(Task):
    """A function that runs on a hub and may park. Made by `Hub.spawn`."""

    __slots__ = (
        "__weakref__",
        "arguments",
        "begun",
        "body",
        "context",
        "doom",
        "function",
        "hub",
        "joiners",
        "late",
        "limit",
        "pending",
    )

    def __init__(
        self, hub: Any, function: Callable[..., object], arguments: tuple[Any, ...]
    ) -> None:
        super().__init__()
        self.hub = hub
        self.function = function
        self.arguments = arguments
        self.context: contextvars.Context | None = contextvars.copy_context()
        self.body: greenlet.greenlet | None = None
        self.begun = False
        self.pending: list[Corked] = []  # what it has written and not yet sent
        self.doom: BaseException | None = None  # what to raise in it when it resumes
        self.joiners: list[Callable[[], object]] = []
        self.limit = FOREVER  # the moment its present wait ends
        self.late = False  # that moment has passed
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
    def doomed(self) -> bool:
        """Whether an error waits to be raised in it when it resumes."""
        return self.doom is not None

    @property
    def parked(self) -> bool:
        """Whether it waits for something."""
        return self.state == PARKED

    def fire(self, loop: Loop, now: float) -> None:
        if self.state != PARKED or self.limit == FOREVER:
            return
        if self.limit > now:
            loop.arm(self, self.limit)
        else:
            self.late = True
            loop.push(self)

    def hold(self, corked: Corked) -> None:
        """Have `corked` settled when this fiber next waits."""
        self.pending.append(corked)

    def settle(self) -> bool:
        """Send what it holds back; True when that had to wait."""
        waited = False
        while self.pending:
            waited |= self.pending.pop(0).settle()
        return waited

    def meet_doom(self) -> None:
        """Raise in the fiber, which has resumed, what it was woken to meet."""
        if self.doom is not None:
            doom, self.doom = self.doom, None
            try:
                raise doom
            finally:
                del doom  # it holds this frame, which would hold it

    def execute(self) -> None:
        """Run the function; everything it raises ends here."""
        hub = self.hub
        try:
            self.function(*self.arguments)
        except (FiberExit, SystemExit):
            pass  # an exit ends its fiber alone, as it would end a thread
        except KeyboardInterrupt as stop:
            hub.escaped = stop
        except BaseException as error:
            hub.report(self, error)
        while self.pending:
            self.settle_last()
        self.finish()

    def settle_last(self) -> None:
        """Send what it holds back when it ends; a kill meanwhile costs the stream that waits."""
        try:
            self.settle()
        except FiberExit:
            pass

    def finish(self) -> None:
        """Be dead, and tell those who wait for it."""
        self.state = DONE
        self.arguments = ()
        self.body = self.context = self.doom = None
        self.pending = []
        self.hub.loop.disarm(self)
        self.hub.alive.discard(self)
        joiners, self.joiners = self.joiners, []
        for told in joiners:
            told()

    def wake(self) -> None:
        """Let it run again if it is parked. From any thread; a park may end early."""
        if self.hub.is_here():
            self.hub.loop.push(self)
        else:
            self.hub.call_from_thread(self.wake)

    def kill(self, exc: BaseException | type[BaseException] | None = None) -> None:
        """Raise `exc` (default: a `FiberExit`) where the fiber is parked. From any thread.

        A fiber that has not begun never does; a dead one stays dead; the running one raises here.
        """
        if self.state == DONE:
            return
        if not self.hub.is_here():
            self.hub.call_from_thread(self.kill, exc)
            return
        error = FiberExit() if exc is None else exc() if isinstance(exc, type) else exc
        if self is self.hub.running:
            raise error
        if not isinstance(self.doom, FiberExit):
            self.doom = error
        self.hub.loop.push(self)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it is dead, at most `timeout` seconds (None: for ever); say whether it is."""
        return self.dead or self.hub.await_end(self, timeout)

    def on_end(self, told: Callable[[], object]) -> None:
        """Call `told()` in the hub's thread when the fiber has ended; at once if it has."""
        if self.dead:
            told()
        else:
            self.joiners.append(told)

    def not_on_end(self, told: Callable[[], object]) -> None:
        """Take back `on_end`."""
        if told in self.joiners:
            self.joiners.remove(told)
