# cython: binding=False
"""The compiled switchboard: it parks fibers and switches to those that the loop finds ready.

It stands between the loop and the hub, which turns it; `switchboard.py` is its reference. This is
the hottest code of the engine: a switch is half of what a small echo costs in here.
"""
cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from everserve.fibers._fiber cimport Fiber, Host, greenlet, raise_current
from everserve.fibers._frames cimport chunk_in, chunk_is_full, chunk_out, keep_chunks
from everserve.fibers._loop cimport (
    Loop, Watch, coarse, TASK_PARKED, TASK_RUNNING,
)

from everserve.errors import HubError

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
    void store_hub "everserve_set_hub"(PyObject *hub)

cdef enum:
    QUANTUM = 64                 # operations that need no wait before the others get their turn
    SPARE = 256                  # bodies kept for the next fibers
    SCRATCH = 65536              # bytes a read may find at once

cdef double SLICE = 0.01         # seconds a fiber that never waits may hold the loop

PyGreenlet_Import()
keep_chunks()


cdef inline int switch_to(greenlet body) noexcept:
    cdef PyObject *result = PyGreenlet_Switch(body, NULL, NULL)
    Py_XDECREF(result)
    return -1 if result is NULL else 0


cdef void *get_turning() noexcept:
    """The hub that is being turned in this thread, or NULL."""
    return everserve_running_hub


cdef void set_turning(void *hub) noexcept:
    store_hub(<PyObject *>hub)


cdef Switchboard running_hub():
    """The hub whose fiber is running in this thread, or None."""
    cdef Switchboard hub
    if everserve_running_hub is NULL:
        return None
    hub = <Switchboard>everserve_running_hub
    return hub if hub.current is not None else None


cdef class Switchboard(Host):
    """The fibers of one thread: which runs, which come next, what is kept for those to come."""

    def __cinit__(self):
        self.scratch = <char *>PyMem_Malloc(SCRATCH)
        if self.scratch is NULL:
            raise MemoryError
        self.loop = Loop()
        self.alive = set()
        self.spare = []

    def __dealloc__(self):
        PyMem_Free(self.scratch)

    @property
    def running(self):
        """The fiber that holds the loop, or None."""
        return self.current

    # --- rounds ------------------------------------------------------------------------------

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

    cdef int await_io(self, Watch watch, bint writing, double limit) except -1:
        """Park until the descriptor may be ready; 0 when `limit` has passed."""
        cdef Fiber me = self.current
        cdef int woken
        if me.pending is not None and me.settle():
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
        if me.pending is not None and me.settle():
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

    cdef int dismiss_spare(self) except -1:
        cdef greenlet body
        self.current = None
        while self.spare:
            body = self.spare.pop()
            Py_XDECREF(PyGreenlet_Switch(body, NULL, NULL))
        return 0


cdef int leave_watch(Watch watch, Fiber me) except -1:
    if watch.reader is me:
        watch.reader = None
    if watch.writer is me:
        watch.writer = None
    if watch.others is not None and me in watch.others:
        watch.others.remove(me)
    return 0
