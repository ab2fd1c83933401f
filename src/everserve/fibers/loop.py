"""The loop: readiness of descriptors, a heap of timers and a queue of what may run. The reference.

It stands below the hub, which runs what the loop finds ready; `_loop.pyx` is the same, compiled.
"""

import heapq
import itertools
import select
import selectors
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from everserve.errors import HubError
from everserve.fibers.exhaustion import EXHAUSTED, PAUSE, log_exhaustion
from everserve.sockets.wakeup import Wakeup

__all__ = ["FOREVER", "Loop", "Task", "Watch"]

FOREVER: Final = float("inf")
IDLE, PARKED, READY, RUNNING, DONE = range(5)

IN, OUT, HUNG_UP, URGENT = 1, 2, 4, 8
_LONGEST_WAIT = 86_400.0  # seconds; epoll_wait(2) takes an int of milliseconds
_STALE_TIMERS = 64  # fewer than these are not worth a rebuilt heap

Callback = Callable[[], object]


class Task:
    """Something that can be in the ready queue and in the heap of timers."""

    __slots__ = ("due", "entry", "state")

    def __init__(self) -> None:
        self.state = IDLE
        self.due = FOREVER  # when its entry in the heap fires
        self.entry: list[Any] | None = None

    def fire(self, loop: "Loop", now: float) -> None:
        """Called when its time has come; its entry has left the heap."""

    def wake(self) -> None:
        """Make it ready to run if it is parked. For any thread."""
        raise NotImplementedError


class Watch:
    """What the engine knows of one descriptor.

    `readable` and `writable` are guesses: a call that would block makes them false, an event of the
    loop makes them true again.
    """

    __slots__ = (
        "buffered",
        "callback",
        "duplicated",
        "elsewhere",
        "fd",
        "hung_up",
        "infers",
        "is_stream",
        "loop",
        "others",
        "parked",
        "readable",
        "reader",
        "refused",
        "timeout",
        "writable",
        "writer",
    )

    def __init__(self, fd: int, infers: bool = False) -> None:
        self.fd = fd
        self.infers = infers  # a short read means that nothing is left
        self.is_stream = True  # else each write is a message of its own
        self.loop: Loop | None = None  # until a wait registers the descriptor
        self.callback: Callback | None = None  # set for a level-triggered reader of the hub
        self.reader: Task | None = None
        self.writer: Task | None = None
        self.others: list[Task] | None = None  # further tasks that wait for the same descriptor
        self.parked: Callback | None = None  # to be run by a fiber when it is readable
        self.elsewhere: list[Watch] = []  # of the same descriptor in the loops of other hubs
        self.timeout: float | None = None  # seconds for each call
        self.readable = self.writable = True
        self.hung_up = False  # the peer has closed, or an error is pending: always ask the kernel
        self.duplicated = False  # a duplicate may keep it in epoll after it is closed
        self.refused = 0  # IN, OUT: the kernel said EAGAIN, and was not asked again
        self.buffered: Any = None  # the writer that has buffered bytes for this descriptor

    @property
    def registered(self) -> bool:
        return self.loop is not None

    def wake(self, events: int) -> None:
        """Wake the tasks that wait for one of `events`."""
        if events & URGENT:
            self.infers = False  # a read stops short at the urgent mark, with more behind it
        if events & (IN | HUNG_UP | URGENT):
            self.readable = True
            if events & HUNG_UP:
                self.hung_up = True
            if self.reader is not None:
                task, self.reader = self.reader, None
                task.wake()
            if self.parked is not None and self.loop is not None:
                self.loop.awaken(self)
        if events & (OUT | HUNG_UP):
            self.writable = True
            if self.writer is not None:
                task, self.writer = self.writer, None
                task.wake()
        if self.others is not None:
            waiting, self.others = self.others, None
            for task in waiting:
                task.wake()

    @property
    def awaited(self) -> bool:
        """Whether a task waits for the descriptor in the loop of this watch."""
        return self.reader is not None or self.writer is not None or bool(self.others)

    def watch_in(self, loop: "Loop") -> "Watch":
        """A watch of the same descriptor in the loop of another hub, which `drop` removes."""
        for second in self.elsewhere:
            if second.loop is loop:
                return second
        second = Watch(self.fd)
        second.duplicated = True  # the descriptor stays open when it is forgotten
        self.elsewhere.append(second)
        return second

    def drop(self, second: "Watch") -> None:
        """Release a watch of `watch_in` for which no task waits any more."""
        if second in self.elsewhere:
            self.elsewhere.remove(second)
            second.release()

    def release(self) -> None:
        """The descriptor is about to be closed or detached: wake the tasks that wait for it.

        From any thread: the tasks may belong to another one, and to several hubs.
        """
        loop = self.loop
        if loop is not None:
            if self.parked is not None:
                loop.awaken(self)
                loop.wake()
            loop.forget(self)
        self.fd = -1  # before the tasks are looked for: see `Scheduler.await_io`
        self.wake(IN | OUT)
        elsewhere, self.elsewhere = self.elsewhere, []
        for second in elsewhere:
            second.release()

    def leave(self, task: Task) -> None:
        """`task` no longer waits for this descriptor."""
        if self.reader is task:
            self.reader = None
        if self.writer is task:
            self.writer = None
        if self.others is not None and task in self.others:
            self.others.remove(task)


class _EpollPoller:
    """Edge-triggered: a descriptor is registered once, whatever is waited for."""

    _EDGES = (
        (select.EPOLLIN | select.EPOLLOUT | select.EPOLLPRI | select.EPOLLRDHUP | select.EPOLLET)
        if hasattr(select, "epoll")
        else 0
    )

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.poll = self._epoll.poll
        self.close = self._epoll.close
        self.fileno = self._epoll.fileno

    def add(self, fd: int, level: bool) -> None:
        mask = select.EPOLLIN if level else self._EDGES
        try:
            self._epoll.register(fd, mask)
        except FileExistsError:
            self._epoll.modify(fd, mask)

    def remove(self, fd: int) -> None:
        try:
            self._epoll.unregister(fd)
        except OSError:
            pass

    def meaning(self, events: int) -> int:
        """Translate the bits of epoll into those of this module."""
        found = 0
        if events & select.EPOLLIN:
            found |= IN
        if events & select.EPOLLOUT:
            found |= OUT
        if events & (select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP):
            found |= HUNG_UP
        if events & select.EPOLLPRI:
            found |= URGENT
        return found

    def rearm(self, watch: Watch, direction: int) -> None:
        """Report again what the kernel has refused though it is there.

        A call may say EAGAIN where the poller says ready, for want of memory say. No edge follows
        then, as nothing changes, and a task that waited for one would sleep for ever.
        """
        if not watch.refused & direction:
            return
        watch.refused &= ~direction
        asked = select.poll()
        event = select.POLLOUT if direction == OUT else select.POLLIN
        asked.register(watch.fd, event)
        if any(found & event for _fd, found in asked.poll(0)):
            self.add(watch.fd, watch.callback is not None)


class _SelectorPoller:
    """Level-triggered, for systems without epoll: a direction is watched while a task waits for it."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._level: set[int] = set()
        self.close = self._selector.close

    def fileno(self) -> int:
        own: Callable[[], int] | None = getattr(self._selector, "fileno", None)
        if own is None:
            raise HubError(
                "this system has neither epoll nor kqueue: no other loop can wait for it"
            )
        return own()

    def add(self, fd: int, level: bool) -> None:
        if level:
            self._level.add(fd)
            self._watch(fd, selectors.EVENT_READ)

    def remove(self, fd: int) -> None:
        self._level.discard(fd)
        self._watch(fd, 0)

    def _watch(self, fd: int, events: int) -> None:
        known = self._selector.get_map().get(fd)
        if known is None and events:
            self._selector.register(fd, events)
        elif known is not None and events and known.events != events:
            self._selector.modify(fd, events)
        elif known is not None and not events:
            self._selector.unregister(fd)

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        found = self._selector.select(None if timeout is not None and timeout < 0 else timeout)
        for key, events in found:
            if key.fd not in self._level:
                self._watch(key.fd, key.events & ~events)  # a task may wait for the other direction
        return [(key.fd, events) for key, events in found]

    def meaning(self, events: int) -> int:
        return (IN if events & selectors.EVENT_READ else 0) | (
            OUT if events & selectors.EVENT_WRITE else 0
        )

    def rearm(self, watch: Watch, _direction: int) -> None:
        """Watch the directions that tasks wait for."""
        events = 0
        if watch.reader is not None or watch.others or watch.parked is not None:
            events |= selectors.EVENT_READ
        if watch.writer is not None or watch.others:
            events |= selectors.EVENT_WRITE
        self._watch(watch.fd, events)


class Loop:
    """Waits for descriptors, times and other threads; queues what may run.

    Owns its own descriptors until `close()`. One thread waits; `wake()` is for any thread and for
    signal handlers.
    """

    def __init__(self) -> None:
        self.poller: _EpollPoller | _SelectorPoller = (
            _EpollPoller() if hasattr(select, "epoll") else _SelectorPoller()
        )
        self.ready: deque[Any] = deque()
        self.watches: dict[int, Watch] = {}
        self.fired: list[Callback] = []  # callbacks of the readers that are readable now
        self.awakened: deque[Callback] = deque()  # what was parked, for fibers to run
        self.idle = False  # inside the wait
        self.on_active: Callback | None = None  # set by the stall watch
        self.closed = False
        self.notified = False  # a wake-up has come; the hub resets it
        self._notifying = False
        self._heap: list[list[Any]] = []
        self._order = itertools.count()
        self._stale = 0
        self._postponed: list[Watch] = []  # readers that could not be registered yet
        self._wakeup: Wakeup | None = Wakeup()  # closes with the last reference
        self._notified_fd = self._wakeup.fileno()
        self.poller.add(self._notified_fd, level=True)

    def close(self) -> None:
        """Close the descriptors of the loop; those that it watches stay open."""
        if self.closed:
            return
        self.closed = True
        self._wakeup = None
        self.poller.close()
        for watch in self.watches.values():
            watch.loop = None
        self.watches.clear()
        self.fired.clear()
        self._heap.clear()

    def call_when_active(self, callback: Callback) -> None:
        """Have `callback()` called once, when the present wait ends or a turn begins."""
        self.on_active = callback

    def report_active(self) -> None:
        """Call what `call_when_active` has left."""
        callback, self.on_active = self.on_active, None
        if callback is not None:
            callback()

    def abandon(self) -> None:
        """In a child of fork: close the loop; what the parent shares with it stays untouched."""
        self.close()

    # --- the ready queue -----------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        return len(self.ready)

    def push(self, task: Task) -> None:
        """Queue a parked task; any other is queued already, or runs, or has ended."""
        if task.state == PARKED:
            task.state = READY
            self.ready.append(task)

    def awaken(self, watch: Watch) -> None:
        """Queue what is parked at `watch`. From any thread, which then wakes the loop."""
        function, watch.parked = watch.parked, None
        if function is not None:
            self.awakened.append(function)

    # --- descriptors -----------------------------------------------------------------------------

    def register(self, watch: Watch) -> None:
        """Have the kernel watch a descriptor: once, for its whole life."""
        if self.closed:
            raise RuntimeError("the loop is closed")
        self.poller.add(watch.fd, watch.callback is not None)
        replaced = self.watches.get(watch.fd)
        if replaced is not None and replaced is not watch:
            replaced.wake(IN | OUT)
            replaced.loop = None
        self.watches[watch.fd] = watch
        watch.refused = 0  # a new registration reports the present state
        watch.loop = self

    def forget(self, watch: Watch) -> None:
        """Forget `watch` before its descriptor is closed, which removes it from epoll by itself."""
        if watch.loop is not self:
            return
        if watch.duplicated or isinstance(self.poller, _SelectorPoller):
            self.poller.remove(watch.fd)
        watch.loop = None
        if self.watches.get(watch.fd) is watch:
            del self.watches[watch.fd]

    def add_reader(self, fd: int, callback: Callback) -> None:
        """Have `callback()` called by the hub in each turn in which `fd` is readable."""
        watch = Watch(fd)
        watch.callback = callback
        self._try_to_register(watch)

    def _try_to_register(self, watch: Watch) -> None:
        """Register a reader now, or after a pause where the system has run out of something."""
        try:
            self.register(watch)
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            log_exhaustion(error)
            self._postponed.append(watch)

    def _register_postponed(self) -> None:
        postponed, self._postponed = self._postponed, []
        for watch in postponed:
            self._try_to_register(watch)

    def remove_reader(self, fd: int) -> bool:
        """Undo `add_reader`; True if there was one."""
        for postponed in self._postponed:
            if postponed.fd == fd:
                self._postponed.remove(postponed)
                return True
        watch = self.watches.get(fd)
        if watch is None or watch.callback is None:
            return False
        watch.duplicated = True
        watch.callback = None
        self.forget(watch)
        return True

    # --- timers ------------------------------------------------------------------------------------

    def arm(self, task: Task, due: float) -> None:
        """Fire `task` at `due`, or earlier: a task that is fired too early arms itself again."""
        if task.entry is not None:
            if task.due <= due:
                return
            self.disarm(task)
        task.due = due
        task.entry = [due, next(self._order), task]
        heapq.heappush(self._heap, task.entry)

    def disarm(self, task: Task) -> None:
        """Undo `arm`."""
        if task.entry is None:
            return
        task.entry[2] = None
        task.entry = None
        self._stale += 1
        if self._stale > _STALE_TIMERS and self._stale * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2] is not None]
            heapq.heapify(self._heap)
            self._stale = 0

    def expire(self) -> None:
        """Fire the tasks that are due."""
        if not self._heap:
            return
        now = time.monotonic()
        while self._heap and self._heap[0][0] <= now:
            task = heapq.heappop(self._heap)[2]
            if task is None:
                self._stale -= 1
                continue
            task.entry = None
            task.fire(self, now)

    # --- the wait ------------------------------------------------------------------------------------

    def wait(self, limit: float) -> None:
        """Wait until `limit` at most (0: do not wait), and queue what became ready."""
        if self.closed:
            raise RuntimeError("the loop is closed")
        if self._postponed:
            self._register_postponed()
            if self._postponed:
                limit = min(limit, time.monotonic() + PAUSE)
        try:
            events = self._wait_in_kernel(limit) if limit > 0.0 else self.poller.poll(0)
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            self._pause(error, limit)
            events = []
        for fd, found in events:
            if fd == self._notified_fd:
                self._drain()
                continue
            watch = self.watches.get(fd)
            if watch is None:
                continue
            if watch.callback is not None:
                self.fired.append(watch.callback)
            else:
                watch.wake(self.poller.meaning(found))
        self.expire()

    def _wait_in_kernel(self, limit: float) -> list[tuple[int, int]]:
        self.idle = True
        try:
            return self.poller.poll(self._remaining(limit))
        finally:
            self.idle = False
            if self.on_active is not None:
                self.report_active()

    def _pause(self, error: OSError, limit: float) -> None:
        """The kernel has run out of something, and could not wait: sleep instead, not past `limit`."""
        log_exhaustion(error)
        if limit > 0.0:
            left = self._remaining(limit)
            time.sleep(PAUSE if left < 0.0 else min(PAUSE, left))

    def fileno(self) -> int:
        """The descriptor of the poller, which another loop may wait for."""
        return self.poller.fileno()

    def next_due(self) -> float:
        """When there is something to do though no descriptor is ready; infinity: never."""
        due: float = self._heap[0][0] if self._heap else FOREVER
        return min(due, time.monotonic() + PAUSE) if self._postponed else due

    def _remaining(self, limit: float) -> float:
        """Seconds until `limit` or the first timer; -1 when there is neither."""
        if self._heap:
            limit = min(limit, self._heap[0][0])
        if limit == FOREVER:
            return -1
        return min(max(0.0, limit - time.monotonic()), _LONGEST_WAIT)

    def _drain(self) -> None:
        if self._wakeup is not None:
            self._wakeup.clear()
        self._notifying = False  # not earlier: the byte of a wake-up in between would be lost
        self.notified = True

    def wake(self) -> None:
        """End the wait that runs or comes next. For any thread and for signal handlers."""
        wakeup = self._wakeup
        if self._notifying or wakeup is None:
            return
        self._notifying = True
        wakeup.wake()
