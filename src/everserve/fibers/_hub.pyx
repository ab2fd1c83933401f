# cython: binding=False
"""The compiled hub: greenlets that park on a loop and are woken by it.

It stands between the loop, which says what is ready, and the sockets, which park; `hub.py` is its
reference. The hub itself runs in the main greenlet of the thread that calls `turn()`.
"""
from collections import deque

cimport cython
from cpython.mem cimport PyMem_Malloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_XDECREF
from everserve.fibers._loop cimport (
    Loop, Task, Watch, coarse, monotonic,
    TASK_DONE, TASK_IDLE, TASK_PARKED, TASK_READY, TASK_RUNNING,
)

from everserve.errors import HubError
from everserve.fibers.exits import FiberExit
from everserve.fibers.forking import remember

cdef extern from "greenlet/greenlet.h":
    void PyGreenlet_Import() except *
    greenlet PyGreenlet_New(object run, greenlet parent)
    PyObject *PyGreenlet_Switch(greenlet body, PyObject *args, PyObject *kwargs)
    greenlet PyGreenlet_GetCurrent()

cdef extern from *:
    """
    static __thread PyObject *everserve_running_hub = NULL;
    static inline void everserve_set_hub(PyObject *hub) { everserve_running_hub = hub; }
    """
    PyObject *everserve_running_hub
    void set_turning "everserve_set_hub"(PyObject *hub)

cdef extern from *:
    """
    /* The interpreter gives every greenlet a first chunk of 16 KiB for its Python frames, mapped by
       itself, of which a parked handler uses some hundred bytes and keeps a page of 4 KiB. A first
       chunk of our own keeps 1.5 KiB: a quarter of the memory of an idle connection. Frames that
       need more get the interpreter's chunk on top of it, as ever. */
    #define EVERSERVE_CHUNK 1536
    static void *everserve_chunk_in(void) {
        PyThreadState *state = PyThreadState_Get();
        _PyStackChunk *chunk;
        char *block;
        if (state->datastack_chunk != NULL) return NULL;
        block = (char *)PyMem_RawMalloc(EVERSERVE_CHUNK + 32);
        if (block == NULL) return NULL;
        /* Never at the start of a page: should a greenlet be destroyed without being unwound, its
           chunks go to munmap(2), which must refuse this one. */
        chunk = (_PyStackChunk *)(block + (((uintptr_t)block & 4095) == 0 ? 16 : 0));
        *(char **)((char *)chunk + EVERSERVE_CHUNK) = block;
        chunk->previous = NULL;
        chunk->size = EVERSERVE_CHUNK;
        chunk->top = 0;
        state->datastack_chunk = chunk;
        state->datastack_top = &chunk->data[1];    /* as the interpreter does with a root chunk */
        state->datastack_limit = (PyObject **)((char *)chunk + EVERSERVE_CHUNK);
        return chunk;
    }
    static void everserve_chunk_out(void *chunk) {
        PyThreadState *state = PyThreadState_Get();
        if (chunk == NULL || state->datastack_chunk != chunk) return;   /* still in use: leave it */
        state->datastack_chunk = NULL;
        state->datastack_top = state->datastack_limit = NULL;
        PyMem_RawFree(*(char **)((char *)chunk + EVERSERVE_CHUNK));
    }
    static inline int everserve_chunk_is_full(void *chunk) {
        return chunk != NULL && PyThreadState_Get()->datastack_chunk != chunk;
    }
    """
    void *chunk_in "everserve_chunk_in"()
    void chunk_out "everserve_chunk_out"(void *chunk)
    bint chunk_is_full "everserve_chunk_is_full"(void *chunk)


cdef inline int raise_current() except -1:
    return -1                    # the error is set already


cdef inline int switch_to(greenlet body) noexcept:
    cdef PyObject *result = PyGreenlet_Switch(body, NULL, NULL)
    Py_XDECREF(result)
    return -1 if result is NULL else 0


cdef extern from "Python.h":
    object PyContext_CopyCurrent()
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    PyObject *PyObject_Call(object function, object arguments, PyObject *options)
    void PyErr_SetObject(object kind, object value)
    void PyErr_WriteUnraisable(object where)

cdef enum:
    QUANTUM = 64                 # operations that need no wait before the others get their turn
    SPARE = 256                  # bodies kept for the next fibers
    SCRATCH = 65536              # bytes a read may find at once

cdef double SLICE = 0.01         # seconds a fiber that never waits may hold the loop
cdef double NEVER = float("inf")

PyGreenlet_Import()


cdef Hub running_hub():
    """The hub whose fiber is running in this thread, or None."""
    cdef Hub hub
    if everserve_running_hub is NULL:
        return None
    hub = <Hub>everserve_running_hub
    return hub if hub.current is not None else None


cdef class Corked:
    """Something that holds bytes back until its fiber waits."""

    cdef int settle(self) except -1:
        """Send what is held; 1 when that had to wait. Keeps the peer's errors to itself."""
        return 1 if self.send_pending() else 0

    def send_pending(self):
        raise NotImplementedError


cdef class Timer(Task):
    """A callback at a time, run by the hub."""

    cdef int fire(self, Loop loop, double now) except -1:
        callback, self.callback = self.callback, None
        if callback is not None:
            callback()
        return 0

    def cancel(self):
        """Make it never fire; fine when it has."""
        self.callback = None
        self.loop.disarm(self)


@cython.final
cdef class Fiber(Task):
    """A function that runs on a hub and may park. Made by `Hub.spawn`."""

    def __init__(self):
        self.limit = -1.0

    def __repr__(self):
        return f"<Fiber {self.name} {self.state_name} at {id(self):#x}>"

    @property
    def name(self):
        return getattr(self.function, "__qualname__", "?")

    @property
    def state_name(self):
        return ("idle", "parked", "ready", "running", "dead")[self.state]

    @property
    def dead(self):
        """Whether it has ended, its `finally` blocks included."""
        return self.state == TASK_DONE

    @property
    def parked(self):
        return self.state == TASK_PARKED

    cdef int fire(self, Loop loop, double now) except -1:
        if self.state != TASK_PARKED or self.limit < 0:
            return 0
        if self.limit > now:
            loop.arm(self, self.limit)
        else:
            self.late = True
            loop.push(self)
        return 0

    cdef int hold(self, Corked corked) except -1:
        """Have `corked` settled when this fiber next waits."""
        if self.pending is None:
            self.pending = corked
        elif type(self.pending) is list:
            (<list>self.pending).append(corked)
        else:
            self.pending = [self.pending, corked]
        return 0

    cdef int execute(self) except -1:
        """Run the function; everything it raises ends here.

        What stands on the stack while the function runs is saved whenever the fiber parks, so that
        the handling of errors has a frame of its own.
        """
        cdef PyObject *result
        PyContext_Enter(self.context)
        result = PyObject_Call(self.function, self.arguments, NULL)
        self.arguments = None
        if result is NULL:
            self.meet_error()
        else:
            Py_XDECREF(result)
            if self.pending is not None:
                self.settle_last()
        PyContext_Exit(self.context)
        return self.finish()

    cdef int meet_error(self) except -1:
        try:
            raise_current()
        except FiberExit:
            pass
        except (KeyboardInterrupt, SystemExit) as stop:
            self.hub.escaped = stop
        except BaseException as error:
            self.hub.report(self, error)
        return 0

    cdef int take_error(self) noexcept:
        """Make what was thrown into the body the doom of the fiber."""
        try:
            raise_current()
        except BaseException as error:
            self.doom = error
        return 0

    cdef int meet_doom(self) except -1:
        doom, self.doom = self.doom, None
        raise doom

    cdef int settle_last(self) except -1:
        try:
            self.hub.settle(self)
        except FiberExit:
            pass
        return 0

    cdef int finish(self) except -1:
        cdef Hub hub = self.hub
        self.state = TASK_DONE
        self.arguments = self.context = self.pending = self.doom = None
        self.body = None
        hub.loop.disarm(self)
        hub.alive.discard(self)
        if self.joiners is not None:
            joiners, self.joiners = self.joiners, None
            for told in joiners:
                told()
        return 0

    def wake(self):
        """Let it run again if it is parked. From any thread; a park may end early."""
        if self.hub.is_here():
            self.hub.loop.push(self)
        else:
            self.hub.call_from_thread(self.wake)

    def kill(self, exc=None):
        """Raise `exc` (default: a `FiberExit`) where the fiber is parked. From any thread.

        A fiber that has not begun never does; a dead one stays dead; the running one raises here.
        """
        if self.state == TASK_DONE:
            return
        if not self.hub.is_here():
            self.hub.call_from_thread(self.kill, exc)
            return
        if exc is None:
            exc = FiberExit()
        elif isinstance(exc, type):
            exc = exc()
        if self is self.hub.current:
            raise exc
        if not isinstance(self.doom, FiberExit):
            self.doom = exc
        self.hub.loop.push(self)

    def join(self, timeout=None):
        """Wait until it is dead, at most `timeout` seconds (None: for ever); say whether it is."""
        if self.state == TASK_DONE:
            return True
        return self.hub.await_end(self, timeout)

    def on_end(self, told):
        """Call `told()` in the hub's thread when the fiber has ended; at once if it has."""
        if self.state == TASK_DONE:
            told()
        elif self.joiners is None:
            self.joiners = [told]
        else:
            self.joiners.append(told)

    def not_on_end(self, told):
        if self.joiners is not None and told in self.joiners:
            self.joiners.remove(told)


@cython.final
cdef class Hub:
    """Runs fibers in one thread, over one loop.

    `on_error(fiber, error)` learns of what a fiber raised; without it `sys.unraisablehook` does.
    """

    def __cinit__(self):
        self.scratch = <char *>PyMem_Malloc(SCRATCH)
        if self.scratch is NULL:
            raise MemoryError

    def __init__(self, *, on_error=None):
        self.loop = Loop()
        self.alive = set()
        self.spare = []
        self.calls = deque()
        self.on_error = on_error
        remember(self)

    def __dealloc__(self):
        PyMem_Free(self.scratch)

    # --- what a server calls -----------------------------------------------------------------

    @property
    def fibers(self):
        """How many fibers are alive, those that have not begun included."""
        return len(self.alive)

    @property
    def running(self):
        """The fiber that holds the loop, or None."""
        return self.current

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

        Does not wait when something was ready at once: the caller's own condition, such as the end
        of a fiber, may be met by that.
        """
        cdef bint ran = self.loop.waiting > 0
        cdef PyObject *outer = everserve_running_hub
        cdef double limit = NEVER
        self.take_thread()
        if self.loop.on_active is not None:
            self.loop.rise_from_idle()
        try:
            set_turning(<PyObject *>self)
            self.run_ready()
            if timeout is not None:
                limit = 0.0 if timeout <= 0 else monotonic() + <double>timeout
            if ran or self.loop.waiting or self.calls:
                limit = 0.0
            self.loop.wait(limit)
            if self.calls:
                self.run_calls()
            if self.loop.fired:
                self.run_callbacks()
            self.run_ready()
        finally:
            set_turning(outer)

    def spawn(self, function, *arguments):
        """Have `function(*arguments)` run as a fiber, soon. From any thread."""
        cdef Fiber fiber
        if self.closing or self.loop.epoll_fd < 0:
            raise HubError("the hub is closed: it takes no new fibers")
        fiber = Fiber()
        fiber.hub = self
        fiber.function = function
        fiber.arguments = arguments
        fiber.context = PyContext_CopyCurrent()
        fiber.state = TASK_PARKED
        self.alive.add(fiber)
        if self.is_here():
            self.loop.push(fiber)
        else:
            self.call_from_thread(fiber.wake)
        return fiber

    def wake(self):
        """End the wait of `turn()`. For any thread and for signal handlers."""
        self.loop.rouse()

    def call_from_thread(self, function, *arguments):
        """Have the hub call `function(*arguments)` in its own thread and greenlet, soon."""
        self.calls.append((function, arguments))
        self.loop.rouse()

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
        """Undo `add_reader`; say whether there was one."""
        return self.loop.remove_reader(fd)

    def close(self):
        """Kill the fibers that are left, let their `finally` blocks run, close the loop.

        Belongs to the thread that turned the hub: the greenlets of another cannot run here.
        """
        if self.loop.epoll_fd < 0:
            return
        if self.current is not None:
            raise HubError("a fiber cannot close its own hub: close it where turn() is called")
        self.closing = True
        for attempt in range(16):
            if not self.alive:
                break
            for fiber in tuple(self.alive):
                fiber.kill()
            self.turn(0)
        self.dismiss_spare()
        self.loop.close()
        if self.pool is not None:
            self.pool.shutdown(wait=False, cancel_futures=True)
        if self.watcher is not None:
            self.watcher.leave(self)

    def abandon(self):
        """In a child of fork: leave the parent's loop alone, and let its fibers be."""
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
        if me.pending is not None and self.settle(me):
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
        self.loop.register(watch)   # again, for the edge that tells what is true now
        return watch

    cpdef bint is_here(self):
        """Whether this is the thread that turns the hub, or nobody does yet."""
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
            if self.thread and self.has_bodies():
                raise HubError("the hub's fibers belong to another thread: turn it there")
            self.thread = here
            self.main = PyGreenlet_GetCurrent()
        return 0

    cdef bint has_bodies(self):
        cdef Fiber fiber
        for fiber in self.alive:
            if fiber.begun:
                return True
        return len(self.spare) > 0

    cdef int run_ready(self) except -1:
        """One round: what was ready when it began."""
        cdef Fiber fiber
        self.budget = self.loop.waiting
        while self.budget > 0:
            fiber = self.successor()
            if fiber is None:
                break
            if not fiber.begun:
                self.begin(fiber)
            if fiber.state == TASK_RUNNING or fiber.body is None:
                continue
            if self.enter(fiber) < 0:
                self.current = None
                raise_current()
            self.current = None
            if self.escaped is not None:
                error, self.escaped = self.escaped, None
                raise error
            if self.loop.epoll_fd < 0:
                raise HubError("this process was forked in a fiber: end it with os._exit()")
        return 0

    cdef Fiber successor(self):
        """The next fiber of this round, or None."""
        if self.budget <= 0 or self.loop.head is None:
            return None
        self.budget -= 1
        return <Fiber>self.loop.pop()

    cdef int begin(self, Fiber fiber) except -1:
        """Give a fiber its body: a spare one, or a new one."""
        fiber.begun = True
        if fiber.doom is not None:
            fiber.finish()
            return 0
        if self.spare:
            fiber.body = self.spare.pop()
        else:
            fiber.body = PyGreenlet_New(self.work, self.main)
        return 0

    cdef int enter(self, Fiber fiber) noexcept:
        """Switch to a fiber; back again, -1 with an error set when one was thrown in."""
        fiber.state = TASK_RUNNING
        self.current = fiber
        self.credit = QUANTUM
        self.slice_end = 0.0
        self.switches += 1
        return switch_to(fiber.body)

    def work(self):
        """What a body does: run its fiber, then wait among the spare ones for the next."""
        cdef void *chunk = NULL if self.deep else chunk_in()
        try:
            self.work_on(chunk)
        finally:
            chunk_out(chunk)

    cdef int work_on(self, void *chunk) except -1:
        cdef Fiber me
        while self.current is not None:
            self.current.chunk = chunk
            me = self.current
            body = me.body
            me.execute()
            me = None
            if self.closing or self.escaped is not None or len(self.spare) >= SPARE:
                return 0
            if self.deep and chunk is not NULL:
                return 0
            self.spare.append(body)
            body = None
            if self.leave(None) < 0:
                raise_current()
        return 0

    cdef int leave(self, Fiber me) noexcept:
        """Switch to the next fiber of the round, or else to the hub; returns when resumed.

        Whatever stands on the stack here is copied at each switch, so that neither this method nor
        its callers handle errors: -1 says that one is set.

        Going to the next fiber directly saves one of two switches. One that has not begun is left
        to the hub, whose shallow stack keeps what is saved of it small.
        """
        cdef Fiber following = self.loop.head if self.budget > 0 else None
        if following is not None and following.begun and self.escaped is None:
            self.budget -= 1
            self.loop.pop()
            if following is me:
                following.state = TASK_RUNNING
                self.credit = QUANTUM
                self.slice_end = 0.0
                self.switches += 1
                return 0
            return self.enter(following)
        self.current = None
        return switch_to(self.main)

    cdef int park_quietly(self, Fiber me, double limit) noexcept:
        """Park; 0 when `limit` has passed, 1 when woken, -1 when there is a doom to meet."""
        if me.doom is not None:
            return -1
        me.late = False
        me.limit = limit
        if limit >= 0.0:
            self.loop.arm(me, limit)
        if chunk_is_full(me.chunk):
            self.deep = True             # handlers go deep here: new bodies get the full chunk
        me.state = TASK_PARKED
        if self.leave(me) < 0:
            me.take_error()
        me.limit = -1.0
        if me.doom is not None:
            return -1
        return 0 if me.late else 1

    cdef int park_raw(self, double limit) except -1:
        """Park the running fiber; 0 when `limit` has passed, 1 when it was woken."""
        cdef Fiber me = self.current
        cdef int woken = self.park_quietly(me, limit)
        return woken if woken >= 0 else me.meet_doom()

    cdef int settle(self, Fiber me) except -1:
        """Send what the fiber holds back; 1 when that had to wait."""
        cdef Corked corked
        cdef int waited = 0
        while me.pending is not None:
            if type(me.pending) is list:
                corked = (<list>me.pending).pop(0)
                if not me.pending:
                    me.pending = None
            else:
                corked = me.pending
                me.pending = None
            waited |= corked.settle()
        return waited

    cdef int await_io(self, Watch watch, bint writing, double limit) except -1:
        """Park until the descriptor may be ready; 0 when `limit` has passed."""
        cdef Fiber me = self.current
        cdef int woken
        if me.pending is not None and self.settle(me):
            return 1
        if watch.fd < 0:
            return 1
        if watch.loop is not self.loop:
            if watch.loop is not None:
                watch.duplicated = True    # another hub's: take it from there first
                watch.loop.forget(watch)
                watch.duplicated = False
            self.loop.register(watch)
        if writing and watch.writer is None:
            watch.writer = me
        elif not writing and watch.reader is None:
            watch.reader = me
        elif watch.others is None:
            watch.others = [me]
        else:
            watch.others.append(me)
        woken = self.park_quietly(me, limit)
        if woken <= 0 or watch.reader is me or watch.writer is me or watch.others is not None:
            leave_watch(watch, me)
        return woken if woken >= 0 else me.meet_doom()

    cdef int give_way(self) except -1:
        """Let the others and the kernel have their turn."""
        cdef Fiber me = self.current
        if me.pending is not None and self.settle(me):
            return 0
        me.state = TASK_PARKED
        self.loop.push(me)
        if self.leave(me) < 0:
            me.take_error()
        return 0 if me.doom is None else me.meet_doom()

    cdef int spend(self) except -1:
        """Count an operation that did not wait; at the end of the quantum, give way.

        64 reads keep a pipelining client's cost per read within 2 % of no limit at all.
        """
        cdef double now
        self.credit -= 1
        if self.credit <= 0:
            return self.give_way()
        now = coarse()
        if self.slice_end == 0.0:
            self.slice_end = now + SLICE
        elif now > self.slice_end:
            return self.give_way()
        return 0

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

    cdef int dismiss_spare(self) except -1:
        cdef greenlet body
        self.current = None
        while self.spare:
            body = self.spare.pop()
            Py_XDECREF(PyGreenlet_Switch(body, NULL, NULL))
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
        fiber.on_end(me.wake)
        try:
            while fiber.state != TASK_DONE:
                if not self.park(None if limit is None else limit - monotonic()):
                    break
        finally:
            fiber.not_on_end(me.wake)
        return fiber.dead


cdef int leave_watch(Watch watch, Fiber me) except -1:
    if watch.reader is me:
        watch.reader = None
    if watch.writer is me:
        watch.writer = None
    if watch.others is not None and me in watch.others:
        watch.others.remove(me)
    return 0


def join_from_outside(fiber, timeout):
    """Wait in another thread, or in another hub's fiber, for a fiber of this one."""
    from everserve.fibers.sync import Event
    ended = Event()
    fiber.hub.call_from_thread(fiber.on_end, ended.set)
    return ended.wait(timeout) or fiber.dead


def current():
    """The fiber that is running in this thread, or None."""
    cdef Hub hub = running_hub()
    return None if hub is None else hub.current


def turning_hub():
    """The hub that is being turned in this thread, or None."""
    return None if everserve_running_hub is NULL else <object>everserve_running_hub
