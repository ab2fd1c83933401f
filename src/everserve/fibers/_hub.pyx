# cython: binding=False
"""The compiled hub: it turns the loop and the fibers that the loop wakes.

It stands above the scheduler, and has the methods that servers and fibers call; `hub.py` is its
reference. The hub itself runs in the greenlet of the thread that calls `turn()` or `run()`.
"""
from collections import deque

cimport cython
from cpython.pythread cimport PyThread_get_thread_ident
from everserve.fibers._fiber cimport Fiber, Timer, greenlet
from everserve.fibers._loop cimport Watch, monotonic, TASK_DONE, TASK_PARKED
from everserve.fibers._scheduler cimport Scheduler, get_turning, running_hub, set_turning

from everserve.errors import HubError
from everserve.fibers.forking import remember
from everserve.fibers.waiters import Waiter

cdef extern from "greenlet/greenlet.h":
    void PyGreenlet_Import() except *
    greenlet PyGreenlet_GetCurrent()

cdef extern from "Python.h":
    object PyContext_CopyCurrent()
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    void PyErr_SetObject(object kind, object value)
    void PyErr_WriteUnraisable(object where)

cdef double NEVER = float("inf")
cdef double CLOSING_TIME = 0.1     # seconds that `finally` blocks may wait while the hub closes
cdef int CLOSING_ROUNDS = 16     # how often close() kills a fiber that catches its exit and waits again

PyGreenlet_Import()


cdef double limit_after(timeout) except? -1.0:
    """The moment that is `timeout` seconds away; 0: now, None: never."""
    if timeout is None:
        return NEVER
    return 0.0 if timeout <= 0 else monotonic() + <double>timeout


@cython.final
cdef class Hub(Scheduler):
    """Runs fibers in one thread, over one loop.

    `on_error(fiber, error)` is called for what a fiber raises; without it, `sys.unraisablehook` is.
    """

    def __init__(self, *, on_error=None):
        self.calls = deque()
        self.on_error = on_error
        remember(self)

    # --- what a server calls -----------------------------------------------------------------

    @property
    def fibers(self):
        """How many fibers are alive, those that have not begun included."""
        return len(self.alive)

    def parked_fibers(self):
        """The fibers that wait. From any thread, for what observes the hub."""
        return [fiber for fiber in tuple(self.alive) if fiber.parked]

    @property
    def idle(self):
        """Whether the hub waits in the kernel."""
        return self.loop.idle

    @property
    def thread_id(self):
        """The thread that turns the hub; 0 before the first turn."""
        return self.thread

    @property
    def closed(self):
        return self.loop.epoll_fd < 0

    def turn(self, timeout=None):
        """Run what is ready, wait at most `timeout` seconds (None: for ever), run what became so.

        It does not wait if something was ready at once, as that may already have met the condition
        for which the caller turns the hub, such as the end of a fiber.
        """
        cdef bint ran = self.loop.waiting > 0
        cdef void *outer = get_turning()
        self.take_thread()
        try:
            set_turning(<void *>self)
            self.run_ready()
            self.wait_and_run(0.0 if ran else limit_after(timeout))
        finally:
            set_turning(outer)

    def run(self, timeout=None):
        """Turn until a reader of `add_reader` was called, `wake()` was, or `timeout` has passed.

        For a caller, such as an accept loop, whose own conditions change by nothing else: with
        `turn()` it would return to Python after every few ready fibers, and find nothing to do.
        """
        cdef void *outer = get_turning()
        cdef double limit = limit_after(timeout)
        self.take_thread()
        self.loop.notified = False
        try:
            set_turning(<void *>self)
            self.run_ready()
            while not self.wait_and_run(limit) and not self.loop.notified:
                if limit != NEVER and monotonic() >= limit:
                    break
        finally:
            set_turning(outer)

    def fileno(self):
        """A descriptor that is readable when a turn finds something: for a host with its own loop."""
        return self.loop.epoll_fd

    def turn_hosted(self):
        """Run what is ready, for a host that waits for `fileno()`; when it is to turn the hub again.

        A moment of `time.monotonic()`: 0.0: soon, infinity: only when the descriptor is readable.
        """
        cdef double due = 0.0
        self.loop.idle = False
        self.turn(0)
        if not self.loop.waiting and not self.calls:
            due = self.loop.next_due()
        self.loop.idle = due > 0.0
        return due

    def call_outside(self, function, argument):
        """Call `function(argument)` in the running fiber as outside of all: nothing in it parks.

        For what runs in a fiber and belongs to another loop, such as the steps of a coroutine.
        """
        cdef Fiber me = self.expect_fiber()
        cdef void *outer = get_turning()
        self.current = None
        set_turning(NULL)
        try:
            return function(argument)
        finally:
            self.current = me
            set_turning(outer)

    def spawn(self, function, *arguments):
        """Have `function(*arguments)` run as a fiber, soon. From any thread."""
        cdef Fiber fiber
        if self.closing or self.loop.epoll_fd < 0:
            raise HubError("the hub is closed: it takes no new fibers")
        fiber = Fiber.__new__(Fiber)
        fiber.hub = self
        fiber.function = function
        fiber.arguments = arguments
        fiber.context = PyContext_CopyCurrent()
        fiber.state = TASK_PARKED
        self.alive.add(fiber)
        if self.is_here():
            self.loop.push(fiber)
            if self.host is not None:
                self.host.schedule()     # a task may have called
        else:
            self.call_from_thread(fiber.wake)
        return fiber

    def wake(self):
        """End the wait of `turn()`. For any thread and for signal handlers."""
        self.loop.notify()

    def call_from_thread(self, function, *arguments):
        """Have the hub call `function(*arguments)` in its own thread and greenlet, soon."""
        self.calls.append((function, arguments))
        self.loop.notify()

    def call_at(self, double when, callback):
        """Have the hub call `callback()` at the moment `when` of `time.monotonic()`."""
        cdef Timer timer = Timer()
        timer.loop = self.loop
        timer.callback = callback
        self.loop.arm(timer, when)
        return timer

    def add_reader(self, int fd, callback):
        """Have `callback()` called, in the hub's greenlet, in each turn that finds `fd` readable."""
        self.loop.add_reader(fd, callback)

    def remove_reader(self, int fd):
        """Undo `add_reader`; False when there was no reader."""
        return self.loop.remove_reader(fd)

    def drop_waiting(self, function):
        """Kill the fibers of `function` that have not begun. Returns their arguments."""
        cdef Fiber fiber
        arguments = []
        for fiber in tuple(self.alive):
            if not fiber.begun and fiber.function == function:
                if fiber.pending_exception is None:
                    arguments.append(fiber.arguments)
                fiber.kill()
        return arguments

    def close(self):
        """Kill the fibers that are left, let their `finally` blocks run, close the loop.

        Such a block may wait for 0.1 s in all; after that no wait is waited for. Raises, when all is
        closed, what has left the first of them, such as a KeyboardInterrupt.
        Belongs to the thread that turned the hub: the greenlets of another cannot run here.
        """
        if self.loop.epoll_fd < 0:
            return
        if self.current is not None:
            raise HubError("a fiber cannot close its own hub: close it where turn() is called")
        self.closing = True
        errors = []
        self.kill_all()
        ends = monotonic() + CLOSING_TIME
        while self.alive and monotonic() < ends:
            self.turn_on(ends - monotonic(), errors)
        for attempt in range(CLOSING_ROUNDS):
            if not self.alive:
                break
            self.kill_all()
            self.turn_on(0, errors)
        self.dismiss_spare()
        self.run_calls()                 # such as those of a thread that joins a fiber
        self.main = None                 # freed in another thread, after its own has ended, it crashes
        self.loop.close()
        if self.pool is not None:
            self.pool.shutdown(wait=False, cancel_futures=True)
        if self.watcher is not None:
            self.watcher.leave(self)
        if errors:
            raise errors[0]

    cdef int turn_on(self, double timeout, list errors) except -1:
        """Turn while the hub closes; what leaves a fiber must leave no other one unended."""
        try:
            self.turn(timeout)
        except BaseException as error:
            errors.append(error)
        return 0

    cdef int kill_all(self) except -1:
        for fiber in tuple(self.alive):
            fiber.kill()
        return 0

    def end_round(self):
        """Turn on after the fiber that runs, and not after all that are ready. For any thread."""
        self.budget = 0

    def abandon(self):
        """Give up the parent's loop and fibers in a child of fork; neither is touched."""
        set_turning(NULL)
        self.closing = True
        self.current = None
        self.budget = 0
        self.loop.abandon()

    # --- what runs in a fiber calls ------------------------------------------------------------

    def park(self, timeout=None):
        """Wait until woken, at most `timeout` seconds; False when those have passed.

        What the fiber has written and not yet sent leaves first. May end early without reason:
        call it in a loop over the condition that is waited for.
        """
        cdef Fiber me = self.expect_fiber()
        cdef double limit = -1.0
        if timeout is not None:
            limit = monotonic() + <double>timeout
        if me.buffered is not None and me.flush_buffered():
            return True
        return bool(self.park_raw(limit))

    def yield_turn(self):
        """Let the others run, then go on."""
        self.expect_fiber()
        self.give_way()

    def await_fd(self, int fd, bint writing=False, timeout=None):
        """Park until the descriptor is ready; False when `timeout` seconds have passed."""
        cdef Watch watch
        cdef double limit = -1.0
        self.expect_fiber()
        if timeout is not None:
            limit = monotonic() + <double>timeout
        watch = self.watch_fd(fd)
        if writing:
            watch.writable = False
        else:
            watch.readable = False
        while not (watch.writable if writing else watch.readable):
            if not self.await_io(watch, writing, limit):
                return False
        return True

    # --- inside ------------------------------------------------------------------------------

    cdef Watch watch_fd(self, int fd):
        cdef Watch watch
        if 0 <= fd < self.loop.capacity and self.loop.watches[fd] is not NULL:
            watch = <Watch>self.loop.watches[fd]
            watch.infers = False
            self.loop.forget(watch)
        else:
            watch = Watch(fd)
        self.loop.register(watch)   # again: a new registration reports the present state
        return watch

    cpdef bint is_here(self):
        """Whether this is the thread that turns the hub, or no thread does yet."""
        return self.thread == 0 or self.thread == <unsigned long>PyThread_get_thread_ident()

    cdef Fiber expect_fiber(self):
        if self.current is None or not self.is_here():
            raise HubError("only a fiber can wait on its hub: spawn one")
        return self.current

    cdef int take_thread(self) except -1:
        cdef unsigned long here = <unsigned long>PyThread_get_thread_ident()
        if self.current is not None:
            raise HubError("turn() was called inside a fiber or while it runs: let the fiber wait")
        if self.loop.epoll_fd < 0:
            raise HubError("the hub is closed, or belongs to the parent of this process")
        if self.thread != here:
            if self.thread and self.has_greenlets():
                raise HubError("the hub's fibers belong to another thread: turn it there")
            self.thread = here
            self.main = PyGreenlet_GetCurrent()
        return 0

    cdef bint has_greenlets(self):
        cdef Fiber fiber
        for fiber in self.alive:
            if fiber.begun:
                return True
        return len(self.spare) > 0

    cdef int wait_and_run(self, double limit) except -1:
        """Wait, unless there is something to do, and run what became ready; 1 if readers did."""
        cdef int called = 0
        if self.loop.on_active is not None:
            self.loop.report_active()
        self.loop.wait(0.0 if self.loop.waiting or self.calls or self.loop.awakened else limit)
        if self.calls:
            self.run_calls()
        if self.loop.awakened and not self.closing:
            self.spawn(self.resume_parked)
        if self.loop.fired:
            called = 1
            self.run_callbacks()
        self.run_ready()
        return called

    def resume_parked(self):
        """Run what was parked, one after the other: a fiber serves many as long as none waits.

        Where one waits, the next turn gives the rest to another fiber.
        """
        awakened = self.loop.awakened
        while awakened:
            run_in_copy(awakened.popleft())

    cdef int run_calls(self) except -1:
        cdef Py_ssize_t left = len(self.calls)
        while left > 0 and self.calls:
            left -= 1
            function, arguments = self.calls.popleft()
            function(*arguments)
        return 0

    cdef int run_callbacks(self) except -1:
        callbacks, self.loop.fired = self.loop.fired, []
        for callback in callbacks:
            callback()
        return 0

    cdef int report(self, Fiber fiber, error) except -1:
        if self.on_error is None:
            PyErr_SetObject(type(error), error)
            PyErr_WriteUnraisable(fiber.function)
            return 0
        try:
            self.on_error(fiber, error)
        except BaseException as worse:
            self.escaped = worse
        return 0

    def await_end(self, Fiber fiber, timeout):
        """What `Fiber.join` does, by where it is called: in a fiber, in the hub, in another thread."""
        if not self.is_here() or running_hub() not in (None, self):
            return join_from_outside(fiber, timeout)
        limit = None if timeout is None else monotonic() + timeout
        if self.current is None:
            while fiber.state != TASK_DONE and (limit is None or monotonic() < limit):
                self.turn(None if limit is None else limit - monotonic())
            return fiber.dead
        me = self.current
        if me is fiber:
            raise HubError("a fiber cannot wait for its own end: let another one join it")
        fiber.on_end(me.wake)
        try:
            while fiber.state != TASK_DONE:
                if not self.park(None if limit is None else limit - monotonic()):
                    break
        finally:
            fiber.remove_on_end(me.wake)
        return fiber.dead


def join_from_outside(fiber, timeout):
    """Wait in another thread, or in another hub's fiber, for a fiber of this one."""
    ended = Waiter()
    fiber.hub.call_from_thread(fiber.on_end, ended.notify)
    if fiber.dead:
        return True          # its hub may have closed, which calls no one back
    return ended.wait(timeout, current()) or fiber.dead


cdef int run_in_copy(function) except -1:
    """Call it in a copy of the current context."""
    context = PyContext_CopyCurrent()
    PyContext_Enter(context)
    try:
        function()
    finally:
        PyContext_Exit(context)
    return 0


def current():
    """The fiber that is running in this thread, or None."""
    cdef Scheduler hub = running_hub()
    return None if hub is None else hub.current


def here():
    """What identifies the code that runs: its fiber, or else its thread."""
    cdef Scheduler hub = running_hub()
    if hub is None or hub.current is None:
        return <unsigned long>PyThread_get_thread_ident()
    return id(hub.current)


def turning_hub():
    """The hub that is being turned in this thread, or None."""
    return None if get_turning() is NULL else <object>get_turning()
