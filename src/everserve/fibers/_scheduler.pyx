# cython: binding=False
"""The compiled scheduler: it parks fibers and switches to those that the loop finds ready.

It stands between the loop and the hub, its subclass; `scheduler.py` is its reference. This is the
hottest code of the engine: a switch is half of the cost of a small echo.
"""
cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from everserve.fibers._fiber cimport Fiber, Host, greenlet, raise_current
from everserve.fibers._frames cimport (
    FRAMES_KNOWN, chunk_in, chunk_is_full, chunk_out, drop_chunks,
)
from everserve.fibers._loop cimport (
    Loop, Watch, monotonic, TASK_PARKED, TASK_RUNNING,
)

from everserve.errors import HubError
from everserve.fibers.frames import allows_small_frames

cdef extern from "greenlet/greenlet.h":
    void PyGreenlet_Import() except *
    greenlet PyGreenlet_New(object run, greenlet parent)
    PyObject *PyGreenlet_Switch(greenlet target, PyObject *args, PyObject *kwargs)
    greenlet PyGreenlet_GetCurrent()

cdef extern from *:
    """
    static __thread PyObject *everserve_running_hub = NULL;
    static inline void everserve_set_hub(PyObject *hub) { everserve_running_hub = hub; }
    """
    PyObject *everserve_running_hub
    void store_hub "everserve_set_hub"(PyObject *hub)

cdef enum:
    QUANTUM = 64                 # operations without a wait before a fiber gives way to the others
    SPARE = 256                  # greenlets kept for the next fibers
    SCRATCH = 65536              # bytes that a read may find at once

cdef double SLICE = 0.001        # seconds a fiber that never waits may hold the loop

small_frames = bool(FRAMES_KNOWN) and allows_small_frames()

PyGreenlet_Import()


cdef inline int switch_to(greenlet target) noexcept:
    cdef PyObject *result = PyGreenlet_Switch(target, NULL, NULL)
    Py_XDECREF(result)
    return -1 if result is NULL else 0


cdef void *get_turning() noexcept:
    """The hub that is being turned in this thread, or NULL."""
    return everserve_running_hub


cdef void set_turning(void *hub) noexcept:
    store_hub(<PyObject *>hub)


cdef Scheduler running_hub():
    """The hub whose fiber is running in this thread, or None."""
    cdef Scheduler hub
    if everserve_running_hub is NULL:
        return None
    hub = <Scheduler>everserve_running_hub
    return hub if hub.current is not None else None


cdef class Scheduler(Host):
    """The fibers of one thread: which one runs, which are next, and spare greenlets."""

    def __cinit__(self):
        self.scratch = <char *>PyMem_Malloc(SCRATCH)
        if self.scratch is NULL:
            raise MemoryError
        self.loop = Loop()
        self.alive = set()
        self.spare = []
        self.deep = not small_frames

    def __dealloc__(self):
        PyMem_Free(self.scratch)

    @property
    def running(self):
        """The fiber that holds the loop, or None."""
        return self.current

    # --- rounds ------------------------------------------------------------------------------

    cdef int run_ready(self) except -1:
        """Run one round: the fibers that were ready when it began."""
        cdef Fiber fiber
        self.budget = self.loop.waiting
        while self.budget > 0:
            fiber = self.successor()
            if fiber is None:
                break
            if not fiber.begun:
                self.begin(fiber)
            if fiber.greenlet is None:
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
        """Give a fiber its greenlet: a spare one, or a new one."""
        fiber.begun = True
        if fiber.pending_exception is not None:
            fiber.finish()
            return 0
        if self.spare:
            fiber.greenlet = self.spare.pop()
        else:
            fiber.greenlet = PyGreenlet_New(self.work, self.main)
        return 0

    cdef int enter(self, Fiber fiber) noexcept:
        """Switch to a fiber; return when resumed: -1 with the exception set if one was thrown in."""
        fiber.state = TASK_RUNNING
        self.current = fiber
        self.credit = QUANTUM
        self.slice_end = 0.0
        self.switches += 1
        return switch_to(fiber.greenlet)

    def work(self):
        """The function of every greenlet: run a fiber, then wait among the spare ones for the next."""
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
            mine = me.greenlet
            me.execute()
            me = None
            if self.closing or self.escaped is not None or len(self.spare) >= SPARE:
                return 0
            if self.deep and chunk is not NULL:
                return 0
            self.spare.append(mine)
            mine = None
            if self.leave(None) < 0:
                raise_current()
        return 0

    cdef int leave(self, Fiber me) noexcept:
        """Switch to the next fiber of the round, or else to the hub; return when resumed.

        Whatever is on the stack here is copied at each switch. So neither this method nor its
        callers handle exceptions: -1 means that one is set.

        A direct switch to the next fiber saves one of two switches. A fiber that has not begun is
        left to the hub: it starts on the hub's shallow stack, of which little has to be saved.
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
        """Park; 0 when `limit` has passed, 1 when woken, -1 when an exception is pending."""
        if me.pending_exception is not None:
            return -1
        me.late = False
        me.limit = limit
        if limit >= 0.0:
            self.loop.arm(me, limit)
        if chunk_is_full(me.chunk):
            self.deep = True             # handlers need more here: new greenlets get a full chunk
        me.state = TASK_PARKED
        if self.leave(me) < 0:
            me.keep_error()
        me.limit = -1.0
        if me.pending_exception is not None:
            return -1
        return 0 if me.late else 1

    cdef int park_raw(self, double limit) except -1:
        """Park the running fiber; 0 when `limit` has passed, 1 when it was woken."""
        cdef Fiber me = self.current
        cdef int woken = self.park_quietly(me, limit)
        return woken if woken >= 0 else me.raise_pending()

    cdef int await_io(self, Watch watch, bint writing, double limit) except -1:
        """Park until the descriptor may be ready; 0 when `limit` has passed."""
        cdef Fiber me = self.current
        cdef int woken
        if me.buffered is not None and me.flush_buffered():
            return 1
        if watch.fd < 0:
            return 1
        if watch.loop is not self.loop:
            if watch.loop is not None:
                if watch.is_awaited():
                    return self.await_elsewhere(watch, writing, limit)
                self.take_watch(watch)
            self.loop.register(watch)
        elif watch.refused:
            self.loop.ask_again(watch, writing)
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
        return woken if woken >= 0 else me.raise_pending()

    cdef bint park_watch(self, Watch watch, function) except -1:
        """Have a fiber run `function()` when the descriptor is readable; until then none is needed.

        False if it may be so already.
        """
        if watch.fd < 0 or watch.readable:
            return False
        if watch.loop is not self.loop:
            if watch.loop is not None:
                self.take_watch(watch)
            self.loop.register(watch)
        elif watch.refused:
            self.loop.ask_again(watch, False)
        watch.parked = function
        return True

    cdef int take_watch(self, Watch watch) except -1:
        """Take a watch away from the loop of another hub."""
        cdef bint former = watch.duplicated
        watch.duplicated = True          # the descriptor stays open: remove it from the other epoll
        watch.loop.forget(watch)
        watch.duplicated = former
        return 0

    cdef int await_elsewhere(self, Watch watch, bint writing, double limit) except -1:
        """As `await_io`, of a descriptor that fibers of another hub wait for."""
        cdef Watch second = watch.watch_in(self.loop)
        cdef int woken
        try:
            self.loop.register(second)   # again, where there was one: it reports the present state
            woken = self.await_io(second, writing, limit)
        finally:
            if not second.is_awaited():
                watch.drop(second)
        if writing:
            watch.writable = True
        else:
            watch.readable = True
        return woken

    cdef int give_way(self) except -1:
        """Let the other fibers run, and the loop ask the kernel."""
        cdef Fiber me = self.current
        if me.buffered is not None and me.flush_buffered():
            return 0
        me.state = TASK_PARKED
        self.loop.push(me)
        if self.leave(me) < 0:
            me.keep_error()
        return 0 if me.pending_exception is None else me.raise_pending()

    cdef int checkpoint(self) except -1:
        """Count an operation that did not wait; at the end of the quantum, give way.

        With 64, a read of a pipelining client costs at most 2 % more than without any limit.
        """
        cdef double now
        self.credit -= 1
        if self.credit <= 0:
            return self.give_way()
        now = monotonic()
        if self.slice_end == 0.0:
            self.slice_end = now + SLICE
        elif now > self.slice_end:
            return self.give_way()
        return 0

    cdef int dismiss_spare(self) except -1:
        cdef greenlet last
        self.current = None
        while self.spare:
            last = self.spare.pop()
            Py_XDECREF(PyGreenlet_Switch(last, NULL, NULL))
        drop_chunks()
        return 0


cdef int leave_watch(Watch watch, Fiber me) except -1:
    if watch.reader is me:
        watch.reader = None
    if watch.writer is me:
        watch.writer = None
    if watch.others is not None and me in watch.others:
        watch.others.remove(me)
    return 0
