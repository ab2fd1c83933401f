"""The hub: it turns the loop and the fibers that the loop wakes. The reference, in Python.

It stands above the scheduler, and has the methods that servers and fibers call; `_hub.pyx` is the
same, compiled. The hub itself runs in the greenlet of the thread that calls `turn()` or `run()`.
"""

import contextvars
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import greenlet

from everserve.errors import HubError
from everserve.fibers.fiber import Fiber, Timer
from everserve.fibers.forking import remember
from everserve.fibers.loop import FOREVER, Watch
from everserve.fibers.scheduler import Scheduler, current, here, running_hub, turning, turning_hub
from everserve.fibers.waiters import Waiter

__all__ = ["Hub", "current", "here", "running_hub", "turning_hub"]

_CLOSING_TIME: Final = 0.1  # seconds that `finally` blocks may wait while the hub closes
_CLOSING_ROUNDS: Final = 16  # how often close() kills a fiber that catches its exit and waits again

ErrorCallback = Callable[[Fiber, BaseException], object]


class Hub(Scheduler):
    """Runs fibers in one thread, over one loop.

    `on_error(fiber, error)` is called for what a fiber raises; without it, `sys.unraisablehook` is.
    """

    def __init__(self, *, on_error: ErrorCallback | None = None) -> None:
        super().__init__()
        self.on_error = on_error
        self.thread_id = 0  # the thread that turns the hub; 0 before the first turn
        self.pool: Any = None  # what `offload` keeps here
        self.watcher: Any = None  # the stall watch, if one looks at this hub
        self.host: Any = None  # what turns it by another loop, if that is so
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        remember(self)

    # --- what a server calls -------------------------------------------------------------------

    @property
    def fibers(self) -> int:
        """How many fibers are alive, those that have not begun included."""
        return len(self.alive)

    def parked_fibers(self) -> list[Fiber]:
        """The fibers that wait. From any thread, for what observes the hub."""
        return [fiber for fiber in tuple(self.alive) if fiber.parked]

    @property
    def idle(self) -> bool:
        """Whether the hub waits in the kernel."""
        return self.loop.idle

    @property
    def closed(self) -> bool:
        return self.loop.closed

    def turn(self, timeout: float | None = None) -> None:
        """Run what is ready, wait at most `timeout` seconds (None: for ever), run what became so.

        It does not wait if something was ready at once, as that may already have met the condition
        for which the caller turns the hub, such as the end of a fiber.
        """
        self._take_thread()
        ran = bool(self.loop.ready)
        outer, turning.hub = turning.hub, self
        try:
            self._run_ready()
            self._wait_and_run(0.0 if ran else _limit_after(timeout))
        finally:
            turning.hub = outer

    def run(self, timeout: float | None = None) -> None:
        """Turn until a reader of `add_reader` was called, `wake()` was, or `timeout` has passed.

        For a caller, such as an accept loop, whose own conditions change by nothing else.
        """
        self._take_thread()
        limit = _limit_after(timeout)
        self.loop.notified = False
        outer, turning.hub = turning.hub, self
        try:
            self._run_ready()
            while not self._wait_and_run(limit) and not self.loop.notified:
                if limit != FOREVER and time.monotonic() >= limit:
                    break
        finally:
            turning.hub = outer

    def fileno(self) -> int:
        """A descriptor that is readable when a turn finds something: for a host with its own loop.

        Raises `HubError` where the system waits without one.
        """
        return self.loop.fileno()

    def turn_hosted(self) -> float:
        """Run what is ready, for a host that waits for `fileno()`; when it is to turn the hub again.

        A moment of `time.monotonic()`: 0.0: soon, infinity: only when the descriptor is readable.
        """
        self.loop.idle = False
        self.turn(0)
        due = 0.0 if self.loop.ready or self._calls else self.loop.next_due()
        self.loop.idle = due > 0.0
        return due

    def call_outside(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Call `function(argument)` in the running fiber as outside of all: nothing in it parks.

        For what runs in a fiber and belongs to another loop, such as the steps of a coroutine.
        """
        me = self._expect_fiber()
        outer, turning.hub = turning.hub, None
        self.running = None
        try:
            return function(argument)
        finally:
            self.running = me
            turning.hub = outer

    def spawn(self, function: Callable[..., object], *arguments: Any) -> Fiber:
        """Have `function(*arguments)` run as a fiber, soon. From any thread."""
        if self._closing or self.loop.closed:
            raise HubError("the hub is closed: it takes no new fibers")
        fiber = Fiber(self, function, arguments)
        self.alive.add(fiber)
        fiber.wake()
        if self.host is not None and self.is_here():
            self.host.schedule()  # a task may have called
        return fiber

    def wake(self) -> None:
        """End the wait of `turn()`. For any thread and for signal handlers."""
        self.loop.wake()

    def call_from_thread(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have the hub call `function(*arguments)` in its own thread and greenlet, soon."""
        self._calls.append((function, arguments))
        self.loop.wake()

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Have the hub call `callback()` at the moment `when` of `time.monotonic()`."""
        timer = Timer(self.loop, callback)
        self.loop.arm(timer, when)
        return timer

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        """Have `callback()` called, in the hub's greenlet, in each turn that finds `fd` readable."""
        self.loop.add_reader(fd, callback)

    def remove_reader(self, fd: int) -> bool:
        """Undo `add_reader`; False when there was no reader."""
        return self.loop.remove_reader(fd)

    def drop_waiting(self, function: Callable[..., object]) -> list[tuple[Any, ...]]:
        """Kill the fibers of `function` that have not begun. Returns their arguments."""
        waiting = [f for f in tuple(self.alive) if not f.begun and f.function == function]
        arguments = [fiber.arguments for fiber in waiting if not fiber.has_pending_exception]
        for fiber in waiting:
            fiber.kill()
        return arguments

    def close(self) -> None:
        """Kill the fibers that are left, let their `finally` blocks run, close the loop.

        Such a block may wait for 0.1 s in all; after that no wait is waited for. Raises, when all is
        closed, what has left the first of them, such as a KeyboardInterrupt.
        Belongs to the thread that turned the hub: the greenlets of another cannot run here.
        """
        if self.loop.closed:
            return
        if self.running is not None:
            raise HubError("a fiber cannot close its own hub: close it where turn() is called")
        self._closing = True
        errors: list[BaseException] = []
        self._kill_all()
        ends = time.monotonic() + _CLOSING_TIME
        while self.alive and time.monotonic() < ends:
            self._turn_on(ends - time.monotonic(), errors)
        for _round in range(_CLOSING_ROUNDS):
            if not self.alive:
                break
            self._kill_all()
            self._turn_on(0, errors)
        self._dismiss_spare()
        self._run_calls()  # such as those of a thread that joins a fiber
        self._main = None  # freed in another thread, after its own has ended, it crashes
        self.loop.close()
        if self.pool is not None:
            self.pool.shutdown(wait=False, cancel_futures=True)
        if self.watcher is not None:
            self.watcher.leave(self)
        if errors:
            raise errors[0]

    def _turn_on(self, timeout: float, errors: list[BaseException]) -> None:
        """Turn while the hub closes; what leaves a fiber must leave no other one unended."""
        try:
            self.turn(timeout)
        except BaseException as error:
            errors.append(error)

    def _kill_all(self) -> None:
        for fiber in tuple(self.alive):
            fiber.kill()

    def end_round(self) -> None:
        """Turn on after the fiber that runs, and not after all that are ready. For any thread."""
        self._budget = 0

    def abandon(self) -> None:
        """Give up the parent's loop and fibers in a child of fork; neither is touched."""
        turning.hub = None
        self._closing = True
        self.running = None
        self._budget = 0
        self.loop.abandon()

    # --- what runs in a fiber calls ------------------------------------------------------------

    def park(self, timeout: float | None = None) -> bool:
        """Wait until woken, at most `timeout` seconds; False when those have passed.

        What the fiber has written and not yet sent leaves first. May end early without reason:
        call it in a loop over the condition that is waited for.
        """
        me = self._expect_fiber()
        limit = FOREVER if timeout is None else time.monotonic() + timeout
        if me.buffered and me.flush_buffered():
            return True
        return self._park(me, limit)

    def yield_turn(self) -> None:
        """Let the others run, then go on."""
        self._expect_fiber()
        self._give_way()

    def await_fd(self, fd: int, writing: bool = False, timeout: float | None = None) -> bool:
        """Park until the descriptor is ready; False when `timeout` seconds have passed."""
        self._expect_fiber()
        limit = FOREVER if timeout is None else time.monotonic() + timeout
        watch = self._watch_fd(fd)
        watch.readable = watch.readable and writing
        watch.writable = watch.writable and not writing
        while not (watch.writable if writing else watch.readable):
            if not self.await_io(watch, writing, limit):
                return False
        return True

    # --- inside --------------------------------------------------------------------------------

    def is_here(self) -> bool:
        """Whether this is the thread that turns the hub."""
        return self.thread_id in (0, threading.get_ident())

    def report(self, fiber: Fiber, error: BaseException) -> None:
        """Report to `on_error` what a fiber raised."""
        if self.on_error is None:
            _say_unraisable(fiber, error)
            return
        try:
            self.on_error(fiber, error)
        except BaseException as worse:
            self.escaped = worse

    def await_end(self, fiber: Fiber, timeout: float | None) -> bool:
        """What `Fiber.join` does, by where it is called: a fiber, the hub, another thread."""
        if not self.is_here() or running_hub() not in (None, self):
            return _join_from_outside(fiber, timeout)
        limit = FOREVER if timeout is None else time.monotonic() + timeout
        me = self.running
        if me is fiber:
            raise HubError("a fiber cannot wait for its own end: let another one join it")
        if me is None:
            while not fiber.dead and time.monotonic() < limit:
                self.turn(None if limit == FOREVER else limit - time.monotonic())
            return fiber.dead
        fiber.on_end(me.wake)
        try:
            while not fiber.dead:
                if not self.park(None if limit == FOREVER else limit - time.monotonic()):
                    break
        finally:
            fiber.remove_on_end(me.wake)
        return fiber.dead

    def _expect_fiber(self) -> Fiber:
        if self.running is None or not self.is_here():
            raise HubError("only a fiber can wait on its hub: spawn one")
        return self.running

    def _take_thread(self) -> None:
        here = threading.get_ident()
        if self.running is not None:
            raise HubError("turn() was called inside a fiber or while it runs: let the fiber wait")
        if self.loop.closed:
            raise HubError("the hub is closed, or belongs to the parent of this process")
        if self.thread_id != here:
            if self.thread_id and (self._spare or any(fiber.begun for fiber in tuple(self.alive))):
                raise HubError("the hub's fibers belong to another thread: turn it there")
            self.thread_id = here
            self._main = greenlet.getcurrent()

    def _watch_fd(self, fd: int) -> Watch:
        watch = self.loop.watches.get(fd)
        if watch is None:
            watch = Watch(fd)
        else:
            watch.infers = False
            self.loop.forget(watch)
        self.loop.register(watch)  # again: a new registration reports the present state
        return watch

    def _wait_and_run(self, limit: float) -> bool:
        """Wait, unless there is something to do, and run what became ready; True if readers did."""
        if self.loop.on_active is not None:
            self.loop.report_active()
        busy = self.loop.ready or self._calls or self.loop.awakened
        self.loop.wait(0.0 if busy else limit)
        if self._calls:
            self._run_calls()
        if self.loop.awakened and not self._closing:
            self.spawn(self.resume_parked)
        called = bool(self.loop.fired)
        if called:
            self._run_callbacks()
        self._run_ready()
        return called

    def resume_parked(self) -> None:
        """Run what was parked, one after the other: a fiber serves many as long as none waits.

        Where one waits, the next turn gives the rest to another fiber.
        """
        awakened = self.loop.awakened
        while awakened:
            contextvars.copy_context().run(awakened.popleft())

    def _run_calls(self) -> None:
        for _call in range(len(self._calls)):
            function, arguments = self._calls.popleft()
            function(*arguments)

    def _run_callbacks(self) -> None:
        callbacks, self.loop.fired = self.loop.fired, []
        for callback in callbacks:
            callback()


def _limit_after(timeout: float | None) -> float:
    """The moment that is `timeout` seconds away; 0: now, None: never."""
    if timeout is None:
        return FOREVER
    return 0.0 if timeout <= 0 else time.monotonic() + timeout


def _say_unraisable(fiber: Fiber, error: BaseException) -> None:
    sys.unraisablehook(
        types.SimpleNamespace(
            exc_type=type(error),
            exc_value=error,
            exc_traceback=error.__traceback__,
            err_msg="Exception ignored in fiber",
            object=fiber,
        )
    )


def _join_from_outside(fiber: Fiber, timeout: float | None) -> bool:
    """Wait in another thread, or in another hub's fiber, for a fiber of this hub."""
    ended = Waiter()
    fiber.hub.call_from_thread(fiber.on_end, ended.notify)
    if fiber.dead:
        return True  # its hub may have closed, which calls no one back
    return ended.wait(timeout, current()) or fiber.dead
