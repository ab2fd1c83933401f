"""The hub: greenlets that park on a loop and are woken by it. The reference, in Python.

It stands between the loop, which says what is ready, and the sockets, which park; `_hub.pyx` is
the same, compiled. The hub itself runs in the main greenlet of the thread that calls `turn()`.
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
from everserve.fibers.exits import FiberExit
from everserve.fibers.forking import remember
from everserve.fibers.loop import (
    DONE,
    FOREVER,
    IDLE,
    PARKED,
    READY,
    RUNNING,
    Loop,
    Task,
    Watch,
)

__all__ = ["Corked", "Fiber", "Hub", "Timer", "current", "running_hub", "turning_hub"]

QUANTUM: Final = 64  # operations that need no wait before the others get their turn
SLICE: Final = 0.01  # seconds a fiber that never waits may hold the loop
SPARE: Final = 256  # bodies kept for the next fibers
_CLOSING_ROUNDS = 16  # how often close() kills a fiber that catches its exit and waits again

_NAMES = {IDLE: "idle", PARKED: "parked", READY: "ready", RUNNING: "running", DONE: "dead"}

ErrorCallback = Callable[["Fiber", BaseException], object]


class _Turning(threading.local):
    hub: "Hub | None" = None


_turning = _Turning()


def running_hub() -> "Hub | None":
    """The hub whose fiber is running in this thread, or None."""
    hub = _turning.hub
    return hub if hub is not None and hub.running is not None else None


def current() -> "Fiber | None":
    """The fiber that is running in this thread, or None."""
    hub = _turning.hub
    return None if hub is None else hub.running


def turning_hub() -> "Hub | None":
    """The hub that is being turned in this thread, or None."""
    return _turning.hub


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
        self, hub: "Hub", function: Callable[..., object], arguments: tuple[Any, ...]
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

    def execute(self) -> None:
        """Run the function; everything it raises ends here."""
        hub = self.hub
        try:
            self.function(*self.arguments)
            if self.pending:
                hub.settle(self)
        except FiberExit:
            pass
        except (KeyboardInterrupt, SystemExit) as stop:
            hub.escaped = stop
        except BaseException as error:
            hub.report(self, error)
        self.finish()

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


class Hub:
    """Runs fibers in one thread, over one loop.

    `on_error(fiber, error)` learns of what a fiber raised; without it `sys.unraisablehook` does.
    """

    def __init__(self, *, on_error: ErrorCallback | None = None) -> None:
        self.loop = Loop()
        self.on_error = on_error
        self.running: Fiber | None = None  # the fiber that holds the loop
        self.switches = 0  # grows whenever a fiber begins or resumes: the stall watch looks at it
        self.alive: set[Fiber] = set()
        self.escaped: BaseException | None = None  # what must leave turn()
        self.thread_id = 0  # the thread that turns the hub; 0 before the first turn
        self.pool: Any = None  # what `offload` keeps here
        self.watcher: Any = None  # the stall watch, if one looks at this hub
        self._main: greenlet.greenlet | None = None
        self._budget = 0  # how many of the ready queue belong to this round
        self._credit = QUANTUM  # operations the running fiber still has before it gives way
        self._slice_end = 0.0
        self._spare: list[greenlet.greenlet] = []  # bodies of finished fibers, parked
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._closing = False
        remember(self)

    # --- what a server calls -------------------------------------------------------------------

    @property
    def fibers(self) -> int:
        """How many fibers are alive, those that have not begun included."""
        return len(self.alive)

    @property
    def idle(self) -> bool:
        """Whether the hub waits in the kernel."""
        return self.loop.idle

    @property
    def closed(self) -> bool:
        return self.loop.closed

    def turn(self, timeout: float | None = None) -> None:
        """Run what is ready, wait at most `timeout` seconds (None: for ever), run what became so.

        Does not wait when something was ready at once: the caller's own condition, such as the end
        of a fiber, may be met by that.
        """
        self._take_thread()
        ran = bool(self.loop.ready)
        if self.loop.on_active is not None:
            self.loop.rise_from_idle()
        outer, _turning.hub = _turning.hub, self
        try:
            self._run_ready()
            if ran or self.loop.ready or self._calls or (timeout is not None and timeout <= 0):
                limit = 0.0
            else:
                limit = FOREVER if timeout is None else time.monotonic() + timeout
            self.loop.wait(limit)
            if self._calls:
                self._run_calls()
            if self.loop.fired:
                self._run_callbacks()
            self._run_ready()
        finally:
            _turning.hub = outer

    def spawn(self, function: Callable[..., object], *arguments: Any) -> Fiber:
        """Have `function(*arguments)` run as a fiber, soon. From any thread."""
        if self._closing or self.loop.closed:
            raise HubError("the hub is closed: it takes no new fibers")
        fiber = Fiber(self, function, arguments)
        self.alive.add(fiber)
        fiber.wake()
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
        """Undo `add_reader`; say whether there was one."""
        return self.loop.remove_reader(fd)

    def close(self) -> None:
        """Kill the fibers that are left, let their `finally` blocks run, close the loop.

        Belongs to the thread that turned the hub: the greenlets of another cannot run here.
        """
        if self.loop.closed:
            return
        if self.running is not None:
            raise HubError("a fiber cannot close its own hub: close it where turn() is called")
        self._closing = True
        for _round in range(_CLOSING_ROUNDS):
            if not self.alive:
                break
            for fiber in tuple(self.alive):
                fiber.kill()
            self.turn(0)
        self._dismiss_spare()
        self.loop.close()
        if self.pool is not None:
            self.pool.shutdown(wait=False, cancel_futures=True)
        if self.watcher is not None:
            self.watcher.leave(self)

    def abandon(self) -> None:
        """In a child of fork: leave the parent's loop alone, and let its fibers be."""
        _turning.hub = None
        self._closing = True
        self.running = None
        self._budget = 0
        self.loop.abandon()

    # --- what runs in a fiber calls ----------------------------------------------------------------

    def park(self, timeout: float | None = None) -> bool:
        """Wait until woken, at most `timeout` seconds; False when those have passed.

        What the fiber has written and not yet sent leaves first. May end early without reason:
        call it in a loop over the condition that is waited for.
        """
        me = self._expect_fiber()
        limit = FOREVER if timeout is None else time.monotonic() + timeout
        if me.pending and self.settle(me):
            return True
        return self._park(me, limit)

    def yield_turn(self) -> None:
        """Let the others run, then go on."""
        self._give_way(self._expect_fiber())

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

    # --- for sockets and streams ---------------------------------------------------------------------

    def settle(self, me: Fiber) -> bool:
        """Send what the fiber holds back; True when that had to wait."""
        waited = False
        while me.pending:
            waited |= me.pending.pop(0).settle()
        return waited

    def await_io(self, watch: Watch, writing: bool, limit: float) -> bool:
        """Park until the descriptor may be ready; False when the moment `limit` has passed."""
        me = self.running
        assert me is not None
        if me.pending and self.settle(me):
            return True
        if watch.fd < 0:
            return True
        if watch.loop is not self.loop:
            self._take_watch(watch)
        if writing and watch.writer is None:
            watch.writer = me
        elif not writing and watch.reader is None:
            watch.reader = me
        elif watch.others is None:
            watch.others = [me]
        else:
            watch.others.append(me)
        self.loop.poller.rearm(watch)
        woken = False
        try:
            woken = self._park(me, limit)
        finally:
            if not woken or watch.reader is me or watch.writer is me or watch.others is not None:
                watch.leave(me)
        return woken

    def spend(self) -> None:
        """Count an operation that did not wait; at the end of the quantum, give way."""
        self._credit -= 1
        if self._credit <= 0:
            self._give_way(self._expect_fiber())
        elif self._slice_end == 0.0:
            self._slice_end = time.monotonic() + SLICE
        elif time.monotonic() > self._slice_end:
            self._give_way(self._expect_fiber())

    def is_here(self) -> bool:
        """Whether this is the thread that turns the hub."""
        return self.thread_id in (0, threading.get_ident())

    def report(self, fiber: Fiber, error: BaseException) -> None:
        """Tell `on_error` what a fiber raised."""
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
            fiber.not_on_end(me.wake)
        return fiber.dead

    # --- inside --------------------------------------------------------------------------------------

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
            if self.thread_id and (self._spare or any(fiber.begun for fiber in self.alive)):
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
        self.loop.register(watch)  # again, for the edge that tells what is true now
        return watch

    def _take_watch(self, watch: Watch) -> None:
        if watch.loop is not None:
            former = watch.duplicated
            watch.duplicated = True  # it stays open: take it from the other epoll
            watch.loop.forget(watch)
            watch.duplicated = former
        self.loop.register(watch)

    def _run_ready(self) -> None:
        """One round: what was ready when it began."""
        ready = self.loop.ready
        self._budget = len(ready)
        while self._budget > 0 and ready:
            self._budget -= 1
            fiber = ready.popleft()
            if not fiber.begun:
                self._begin(fiber)
            if fiber.body is None:
                continue
            try:
                self._enter(fiber)
            finally:
                self.running = None
            if self.escaped is not None:
                error, self.escaped = self.escaped, None
                raise error
            if self.loop.closed:
                raise HubError("this process was forked in a fiber: end it with os._exit()")

    def _begin(self, fiber: Fiber) -> None:
        """Give a fiber its body: a spare one, or a new one."""
        fiber.begun = True
        if fiber.doom is not None:
            fiber.finish()
            return
        body = self._spare.pop() if self._spare else greenlet.greenlet(self._work, self._main)
        body.gr_context = fiber.context
        fiber.context = None
        fiber.body = body

    def _enter(self, fiber: Fiber) -> None:
        fiber.state = RUNNING
        self.running = fiber
        self._credit = QUANTUM
        self._slice_end = 0.0
        self.switches += 1
        body = fiber.body
        assert body is not None
        body.switch()

    def _work(self) -> None:
        """What a body does: run its fiber, then wait among the spare ones for the next."""
        while self.running is not None:
            body = self.running.body
            assert body is not None
            self.running.execute()
            if self._closing or self.escaped is not None or len(self._spare) >= SPARE:
                return
            self._spare.append(body)
            del body
            self._leave(None)

    def _leave(self, me: Fiber | None) -> None:
        """Switch to the next fiber of the round, or else to the hub; returns when resumed.

        Going to the next fiber directly saves one of two switches. One that has not begun is left
        to the hub, whose shallow stack keeps what is saved of it small.
        """
        ready = self.loop.ready
        if self._budget > 0 and ready and ready[0].begun and self.escaped is None:
            self._budget -= 1
            following: Fiber = ready.popleft()
            if following is not me:
                self._enter(following)
                return
            following.state = RUNNING
            self._credit = QUANTUM
            self._slice_end = 0.0
            self.switches += 1
            return
        self.running = None
        assert self._main is not None
        self._main.switch()

    def _park(self, me: Fiber, limit: float) -> bool:
        """Park the running fiber; False when `limit` has passed, True when it was woken."""
        if me.doom is None:
            me.late = False
            me.limit = limit
            if limit != FOREVER:
                self.loop.arm(me, limit)
            me.state = PARKED
            self._leave(me)
            me.limit = FOREVER
        self._meet_doom(me)
        return not me.late

    def _give_way(self, me: Fiber) -> None:
        """Let the others and the kernel have their turn."""
        if me.pending and self.settle(me):
            return
        me.state = PARKED
        self.loop.push(me)
        self._leave(me)
        self._meet_doom(me)

    def _meet_doom(self, me: Fiber) -> None:
        if me.doom is not None:
            doom, me.doom = me.doom, None
            raise doom

    def _run_calls(self) -> None:
        for _call in range(len(self._calls)):
            function, arguments = self._calls.popleft()
            function(*arguments)

    def _run_callbacks(self) -> None:
        callbacks, self.loop.fired = self.loop.fired, []
        for callback in callbacks:
            callback()

    def _dismiss_spare(self) -> None:
        while self._spare:
            self._spare.pop().switch()


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
    from everserve.fibers.sync import Event  # noqa: PLC0415  (sync stands above the hub)

    ended = Event()
    fiber.hub.call_from_thread(fiber.on_end, ended.set)
    return ended.wait(timeout) or fiber.dead
