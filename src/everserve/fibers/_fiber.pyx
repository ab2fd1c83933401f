# cython: binding=False
"""The compiled fiber: a function that runs on a hub and may park; and what a fiber may hold back.

It stands between the loop, whose task it is, and the switchboard, which runs it; `fiber.py` is its
reference.
"""
cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from everserve.fibers._frames cimport drop_context
from everserve.fibers._loop cimport (
    Loop, Task, TASK_DONE, TASK_PARKED,
)

from everserve.fibers.exits import FiberExit

cdef extern from "Python.h":
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    PyObject *PyObject_Call(object function, object arguments, PyObject *options)


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

    def __cinit__(self):
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
    def doomed(self):
        """Whether an error waits to be raised in it when it resumes."""
        return self.doom is not None

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

    cdef int settle(self) except -1:
        """Send what it holds back; 1 when that had to wait."""
        cdef Corked corked
        cdef int waited = 0
        while self.pending is not None:
            if type(self.pending) is list:
                corked = (<list>self.pending).pop(0)
                if not self.pending:
                    self.pending = None
            else:
                corked = self.pending
                self.pending = None
            waited |= corked.settle()
        return waited

    cdef int execute(self) except -1:
        """Run the function; everything it raises ends here.

        What stands on the stack while the function runs is saved whenever the fiber parks, so that
        the handling of errors has a frame of its own.
        """
        cdef PyObject *result
        if self.context is not None:
            PyContext_Enter(self.context)
        result = PyObject_Call(self.function, self.arguments, NULL)
        self.arguments = None
        if result is NULL:
            self.meet_error()
        else:
            Py_XDECREF(result)
        while self.pending is not None:
            self.settle_last()
        if self.context is not None:
            PyContext_Exit(self.context)
        drop_context()
        return self.finish()

    cdef int meet_error(self) except -1:
        try:
            raise_current()
        except (FiberExit, SystemExit):
            pass                  # an exit ends its fiber alone, as it would end a thread
        except KeyboardInterrupt as stop:
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
        """Send what it holds back when it ends; a kill meanwhile costs the stream that waits."""
        try:
            self.settle()
        except FiberExit:
            pass
        return 0

    cdef int finish(self) except -1:
        cdef Host hub = self.hub
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


cdef class Host:
    """What a fiber knows of its hub."""

    cpdef bint is_here(self):
        """Whether this is the thread that turns the hub, or nobody does yet."""
        raise NotImplementedError

    cdef int report(self, Fiber fiber, error) except -1:
        raise NotImplementedError
