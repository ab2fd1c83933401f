"""A hub on a loop of asyncio: the `Host` turns it, a `Guest` is blocking code beside both.

It stands above the hub. The loop waits for the one descriptor of the hub, which has all others behind
it; so the sockets, the timers and the fibers of the hub are the same as without asyncio.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import greenlet

from everserve.errors import HubError
from everserve.fibers.engines import Hub
from everserve.fibers.loop import FOREVER

if TYPE_CHECKING:
    import asyncio

__all__ = ["Guest", "Host", "current_guest", "run_loop"]

T = TypeVar("T")

_LAST_STEPS = 0.1
"""Seconds that tasks, and then generators, may take to end when a loop of everserve's own is closed."""


class Dirty(Protocol):
    """Something that has bytes to send when the task that wrote them waits."""

    def send(self) -> None: ...


class Host:
    """Turns `hub` on `loop`, from `open` to `close`; both belong to the thread that calls them.

    *Ownership*: the hub is the host's; the loop is the caller's.
    """

    def __init__(self, hub: Hub, loop: asyncio.AbstractEventLoop) -> None:
        import asyncio  # noqa: PLC0415

        self.hub = hub
        self.loop = loop
        self.cancelled_error = asyncio.CancelledError
        self.current_task = asyncio.current_task
        self.enter_task: Callable[[Any, Any], object] = asyncio._enter_task
        self.leave_task: Callable[[Any, Any], object] = asyncio._leave_task
        self.guest: Guest | None = None
        self._scheduled = False
        self._due = FOREVER
        self._timer: asyncio.TimerHandle | None = None
        self._dirty: list[Dirty] = []
        hub.host = self

    def open(self) -> None:
        """Begin to turn the hub."""
        self.loop.add_reader(self.hub.fileno(), self.turn)
        self.schedule()

    def close(self) -> None:
        """Turn it no more, and close it."""
        self.loop.remove_reader(self.hub.fileno())
        self._disarm()
        self._scheduled = True  # for ever
        self.hub.close()
        self.hub.host = None  # the two would keep each other alive

    def schedule(self) -> None:
        """Turn the hub soon: a task has made something ready. For the thread of the loop alone."""
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self.turn)

    def send_soon(self, writer: Dirty) -> None:
        """Call `writer.send()` when the tasks that are ready now have run."""
        self._dirty.append(writer)
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self.turn)

    def enter_beside(self, task: Any) -> Any:
        """Make `task` the one that runs, instead of one that closes the hub: that one."""
        outer = self.current_task(self.loop)
        self.leave_task(self.loop, outer)
        self.enter_task(self.loop, task)
        return outer

    def turn(self) -> None:
        """Send what tasks have written, then run what is ready."""
        if self.hub.closed:
            return
        self._scheduled = True  # what becomes ready from here on is seen below
        if self._dirty:
            dirty, self._dirty = self._dirty, []
            for writer in dirty:
                writer.send()
        try:
            due = self.hub.turn_hosted()
        except BaseException as error:
            due = 0.0
            self._escape(error)
        self._scheduled = False
        if due == 0.0 or self._dirty:
            self.schedule()
        elif due != self._due:
            self._arm(due)
        if self.guest is not None:
            self.guest.resume()

    def _escape(self, error: BaseException) -> None:
        """What leaves a turn ends the run, as it does without a host."""
        if self.guest is None:
            raise error
        self.guest.interrupt(error)

    def _arm(self, due: float) -> None:
        self._disarm()
        if due != FOREVER:
            self._due = due
            self._timer = self.loop.call_later(max(0.0, due - time.monotonic()), self._fire)

    def _disarm(self) -> None:
        self._due = FOREVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._disarm()  # it may have come a moment early: the turn arms it again
        self.turn()


class _GuestGreenlet(greenlet.greenlet):  # type: ignore[misc]
    guest: Guest


def current_guest() -> Guest | None:
    """The guest that runs now; None in fibers, tasks and everywhere else."""
    here = greenlet.getcurrent()
    return here.guest if isinstance(here, _GuestGreenlet) else None


class Guest:
    """Blocking code, such as an accept loop, in a greenlet of its own: its waits let the loop go on."""

    def __init__(self, host: Host, function: Callable[[], object]) -> None:
        self.host = host
        self.done: asyncio.Future[None] = host.loop.create_future()
        self._function = function
        self._notified = False
        self._is_parked = False
        self._interrupt: BaseException | None = None
        self._error: BaseException | None = None
        self._greenlet = _GuestGreenlet(self._run)
        self._greenlet.gr_context = copy_context()
        self._greenlet.guest = self

    def start(self) -> None:
        """Run the code up to its first wait."""
        self.host.guest = self
        self._greenlet.switch()
        self.host.schedule()

    def _run(self) -> None:
        try:
            self._function()
        except BaseException as error:
            self._error = error
        self.host.guest = None
        del self._greenlet.guest  # the two would keep each other alive
        if not self.done.done():
            self.done.set_result(None)

    def result(self) -> None:
        """Raise what has left the code, which has ended."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error

    # --- in the guest --------------------------------------------------------------------------

    def wait(self, timeout: float | None) -> bool:
        """Wait for `notify`, at most `timeout` seconds (None: for ever); False after these.

        Raises what `interrupt` was given.
        """
        timer = None
        if timeout is not None:
            timer = self.host.loop.call_later(max(0.0, timeout), self._wake)
        try:
            if not self._notified and self._interrupt is None:
                self._park()
        finally:
            if timer is not None:
                timer.cancel()
        notified, self._notified = self._notified, False
        if self._interrupt is not None:
            error, self._interrupt = self._interrupt, None
            raise error
        return notified

    def _park(self) -> None:
        self._is_parked = True
        assert self._greenlet.parent is not None
        self._greenlet.parent.switch()

    # --- in the loop ---------------------------------------------------------------------------

    def notify(self) -> None:
        """End the wait that runs or comes next, when this turn of the hub has ended."""
        self._notified = True
        self.host.schedule()

    def interrupt(self, error: BaseException) -> None:
        """Raise `error` in the wait that runs or comes next."""
        self._interrupt = error
        self.host.schedule()

    def resume(self) -> None:
        """Go on with the code, if what it waits for has come."""
        if self._is_parked and (self._notified or self._interrupt is not None):
            self._wake()

    def _wake(self) -> None:
        if self._is_parked:
            self._is_parked = False
            self._greenlet.switch()
            self.host.schedule()  # it may have spawned fibers


def run_loop(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    main: Coroutine[Any, Any, T],
    interrupt: Callable[[BaseException], None],
) -> T:
    """Run `main` on a loop of its own, in this thread, then close the loop.

    What a signal handler raises meanwhile is given to `interrupt`, which is to end `main`. Unlike
    `asyncio.run`, it waits for no thread of the loop's executor: one that hangs must not keep a
    server from its end.
    """
    import asyncio  # noqa: PLC0415

    if asyncio._get_running_loop() is not None:
        main.close()
        raise HubError("this thread runs a loop of asyncio already: await server.serve()")
    try:
        loop = new_loop()
    except BaseException:
        main.close()
        raise
    try:
        task = loop.create_task(main)
        while True:
            try:
                return loop.run_until_complete(task)
            except BaseException as error:
                if task.done():
                    raise
                interrupt(error)
    finally:
        _close(loop)


def _close(loop: asyncio.AbstractEventLoop) -> None:
    import asyncio  # noqa: PLC0415

    try:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=_LAST_STEPS))
        generators = loop.create_task(loop.shutdown_asyncgens())
        loop.run_until_complete(asyncio.wait([generators], timeout=_LAST_STEPS))
    finally:
        loop.close()
