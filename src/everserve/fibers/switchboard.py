"""The switchboard: it parks fibers and switches to those that the loop finds ready.

It stands between the loop and the hub, which turns it; `_switchboard.pyx` is the same, compiled.
"""

import threading
import time
from typing import Any, Final

import greenlet

from everserve.errors import HubError
from everserve.fibers.fiber import Fiber
from everserve.fibers.loop import FOREVER, PARKED, RUNNING, Loop, Watch

__all__ = ["Switchboard", "current", "running_hub", "turning_hub"]

QUANTUM: Final = 64  # operations that need no wait before the others get their turn
SLICE: Final = 0.01  # seconds a fiber that never waits may hold the loop
SPARE: Final = 256  # bodies kept for the next fibers


class _Turning(threading.local):
    hub: "Switchboard | None" = None  # that is being turned in this thread


turning: Final = _Turning()


def running_hub() -> "Switchboard | None":
    """The hub whose fiber is running in this thread, or None."""
    hub = turning.hub
    return hub if hub is not None and hub.running is not None else None


def current() -> Fiber | None:
    """The fiber that is running in this thread, or None."""
    hub = turning.hub
    return None if hub is None else hub.running


def turning_hub() -> Any:
    """The hub that is being turned in this thread, or None."""
    return turning.hub


class Switchboard:
    """The fibers of one thread: which runs, which come next, what is kept for those to come."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.running: Fiber | None = None  # the fiber that holds the loop
        self.switches = 0  # grows whenever a fiber begins or resumes: the stall watch looks at it
        self.alive: set[Fiber] = set()
        self.escaped: BaseException | None = None  # what must leave turn()
        self._main: greenlet.greenlet | None = None
        self._budget = 0  # how many of the ready queue belong to this round
        self._credit = QUANTUM  # operations the running fiber still has before it gives way
        self._slice_end = 0.0
        self._spare: list[greenlet.greenlet] = []  # bodies of finished fibers, parked
        self._closing = False

    # --- rounds --------------------------------------------------------------------------------

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
        me.meet_doom()
        return not me.late

    def await_io(self, watch: Watch, writing: bool, limit: float) -> bool:
        """Park until the descriptor may be ready; False when the moment `limit` has passed."""
        me = self._running_fiber()
        if me.pending and me.settle():
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

    def _take_watch(self, watch: Watch) -> None:
        if watch.loop is not None:
            former = watch.duplicated
            watch.duplicated = True  # it stays open: take it from the other epoll
            watch.loop.forget(watch)
            watch.duplicated = former
        self.loop.register(watch)

    def _give_way(self) -> None:
        """Let the others and the kernel have their turn."""
        me = self._running_fiber()
        if me.pending and me.settle():
            return
        me.state = PARKED
        self.loop.push(me)
        self._leave(me)
        me.meet_doom()

    def spend(self) -> None:
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
