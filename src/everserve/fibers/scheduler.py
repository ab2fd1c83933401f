"""The scheduler: it parks fibers and switches to those that the loop finds ready.

It stands between the loop and the hub, its subclass; `_scheduler.pyx` is the same, compiled.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

import greenlet

from everserve.errors import HubError
from everserve.fibers.fiber import Fiber
from everserve.fibers.loop import FOREVER, IN, OUT, PARKED, RUNNING, Loop, Watch

__all__ = ["Scheduler", "current", "here", "running_hub", "turning_hub"]

QUANTUM: Final = 64  # operations without a wait before a fiber gives way to the others
SLICE: Final = 0.001  # seconds a fiber that never waits may hold the loop
SPARE: Final = 256  # greenlets kept for the next fibers


class _Turning(threading.local):
    hub: "Scheduler | None" = None  # the one that is being turned in this thread


turning: Final = _Turning()


def running_hub() -> "Scheduler | None":
    """The hub whose fiber is running in this thread, or None."""
    hub = turning.hub
    return hub if hub is not None and hub.running is not None else None


def current() -> Fiber | None:
    """The fiber that is running in this thread, or None."""
    hub = turning.hub
    return None if hub is None else hub.running


def here() -> int:
    """What identifies the code that runs: its fiber, or else its thread."""
    fiber = current()
    return threading.get_ident() if fiber is None else id(fiber)


def turning_hub() -> Any:
    """The hub that is being turned in this thread, or None."""
    return turning.hub


class Scheduler:
    """The fibers of one thread: which one runs, which are next, and spare greenlets."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.running: Fiber | None = None  # the fiber that holds the loop
        self.switches = 0  # counts each begin and resume of a fiber, for the stall watch
        self.alive: set[Fiber] = set()
        self.escaped: BaseException | None = None  # to be raised from turn()
        self._main: greenlet.greenlet | None = None
        self._budget = 0  # how many fibers of the ready queue belong to this round
        self._credit = QUANTUM  # operations left before the running fiber gives way
        self._slice_end = 0.0
        self._spare: list[greenlet.greenlet] = []  # of finished fibers, parked
        self._closing = False

    # --- rounds --------------------------------------------------------------------------------

    def _run_ready(self) -> None:
        """Run one round: the fibers that were ready when it began."""
        ready = self.loop.ready
        self._budget = len(ready)
        while self._budget > 0 and ready:
            self._budget -= 1
            fiber = ready.popleft()
            if not fiber.begun:
                self._begin(fiber)
            if fiber.greenlet is None:
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
        """Give a fiber its greenlet: a spare one, or a new one."""
        fiber.begun = True
        if fiber.pending_exception is not None:
            fiber.finish()
            return
        given = self._spare.pop() if self._spare else greenlet.greenlet(self._work, self._main)
        given.gr_context = fiber.context
        fiber.context = None
        fiber.greenlet = given

    def _enter(self, fiber: Fiber) -> None:
        fiber.state = RUNNING
        self.running = fiber
        self._credit = QUANTUM
        self._slice_end = 0.0
        self.switches += 1
        assert fiber.greenlet is not None
        fiber.greenlet.switch()

    def _work(self) -> None:
        """The function of every greenlet: run a fiber, then wait among the spare ones for the next."""
        while self.running is not None:
            mine = self.running.greenlet
            assert mine is not None
            self.running.execute()
            if self._closing or self.escaped is not None or len(self._spare) >= SPARE:
                return
            self._spare.append(mine)
            del mine
            self._leave(None)

    def _leave(self, me: Fiber | None) -> None:
        """Switch to the next fiber of the round, or else to the hub; return when resumed.

        A direct switch to the next fiber saves one of two switches. A fiber that has not begun is
        left to the hub: it starts on the hub's shallow stack, of which little has to be saved.
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
        if me.pending_exception is None:
            me.late = False
            me.limit = limit
            if limit != FOREVER:
                self.loop.arm(me, limit)
            me.state = PARKED
            self._leave(me)
            me.limit = FOREVER
        me.raise_pending()
        return not me.late

    def await_io(self, watch: Watch, writing: bool, limit: float) -> bool:
        """Park until the descriptor may be ready; False when `limit` has passed."""
        me = self._running_fiber()
        if me.buffered and me.flush_buffered():
            return True
        if watch.fd < 0:
            return True
        if watch.loop is not self.loop:
            if watch.loop is not None:
                if watch.awaited:
                    return self._await_elsewhere(watch, writing, limit)
                self._take_watch(watch)
            self.loop.register(watch)
        if writing and watch.writer is None:
            watch.writer = me
        elif not writing and watch.reader is None:
            watch.reader = me
        elif watch.others is None:
            watch.others = [me]
        else:
            watch.others.append(me)
        woken = False
        try:
            if watch.fd < 0:  # another thread has released it, and may have seen no one wait
                return True
            self.loop.poller.rearm(watch, OUT if writing else IN)
            woken = self._park(me, limit)
        finally:
            if not woken or watch.reader is me or watch.writer is me or watch.others is not None:
                watch.leave(me)
        return woken

    def park_watch(self, watch: Watch, function: Callable[[], object]) -> bool:
        """Have a fiber run `function()` when the descriptor is readable; until then none is needed.

        False if it may be so already.
        """
        if watch.fd < 0 or watch.readable:
            return False
        if watch.loop is not self.loop:
            if watch.loop is not None:
                self._take_watch(watch)
            self.loop.register(watch)
        watch.parked = function
        self.loop.poller.rearm(watch, IN)
        return True

    def _take_watch(self, watch: Watch) -> None:
        """Take a watch away from the loop of another hub."""
        assert watch.loop is not None
        former = watch.duplicated
        watch.duplicated = True  # the descriptor stays open: remove it from the other epoll
        watch.loop.forget(watch)
        watch.duplicated = former

    def _await_elsewhere(self, watch: Watch, writing: bool, limit: float) -> bool:
        """As `await_io`, of a descriptor that fibers of another hub wait for."""
        second = watch.watch_in(self.loop)
        try:
            self.loop.register(second)  # again, where there was one: it reports the present state
            woken = self.await_io(second, writing, limit)
        finally:
            if not second.awaited:
                watch.drop(second)
        if writing:
            watch.writable = True
        else:
            watch.readable = True
        return woken

    def _give_way(self) -> None:
        """Let the other fibers run, and the loop ask the kernel."""
        me = self._running_fiber()
        if me.buffered and me.flush_buffered():
            return
        me.state = PARKED
        self.loop.push(me)
        self._leave(me)
        me.raise_pending()

    def checkpoint(self) -> None:
        """Count an operation that did not wait; at the end of the quantum, give way."""
        self._credit -= 1
        if self._credit <= 0:
            self._give_way()
        elif self._slice_end == 0.0:
            self._slice_end = time.monotonic() + SLICE
        elif time.monotonic() > self._slice_end:
            self._give_way()

    def _dismiss_spare(self) -> None:
        while self._spare:
            self._spare.pop().switch()

    def _running_fiber(self) -> Fiber:
        assert self.running is not None
        return self.running
