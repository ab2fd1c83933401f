"""The compiled fiber: a function that runs on a hub and may park; a timer; and what may be buffered.

It stands between the loop, whose task it is, and the scheduler, which runs it; `fiber.py` is its
reference.
"""
cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from everserve.fibers._loop cimport (
    Loop, Task, TASK_DONE, TASK_PARKED,
)

from everserve.fibers.exits import FiberExit, began_in_signal_handler

cdef extern from "Python.h":
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    PyObject *PyObject_Call(object function, object arguments, PyObject *options)


cdef class Buffered:
    """Something that buffers bytes until its fiber waits."""

    cdef int flush_quietly(self) except -1:
        """Send what is buffered; 1 when that had to wait. Errors of the peer are kept for later."""
        raise NotImplementedError


cdef class Timer(Task):
    """A callback that the hub calls at a given time."""

    cdef int fire(self, Loop loop, double now) except -1:
        callback, self.callback = self.callback, None
        if callback is not None:
            callback()
        return 0

    def cancel(self):
        """Take the callback back; nothing happens if it has been called."""
        self.callback = None
        self.loop.disarm(self)


@cython.final
cdef class Fiber(Task):
    """A function that runs on a hub and may park. Made by `Hub.spawn`."""

    def __cinit__(self):
        self.limit = -1.0

    def __repr__(self):
        state = ("idle", "parked", "ready", "running", "dead")[self.state]
        return f"<Fiber {self.name} {state} at {id(self):#x}>"

    @property
    def name(self):
        return getattr(self.function, "__qualname__", "?")

    @property
    def dead(self):
        """Whether it has ended, its `finally` blocks included."""
        return self.state == TASK_DONE

    @property
    def has_pending_exception(self):
        """Whether an exception will be raised in it when it resumes."""
        return self.pending_exception is not None

    @property
    def parked(self):
        """Whether it waits for something."""
        return self.state == TASK_PARKED

    @property
    def frame(self):
        """The Python frame where it is parked; None if it runs, or has not begun."""
        return None if self.greenlet is None else (<object>self.greenlet).gr_frame

    cdef int fire(self, Loop loop, double now) except -1:
        if self.state != TASK_PARKED or self.limit < 0:
            return 0
        if self.limit > now:
            loop.arm(self, self.limit)
        else:
            self.late = True
            loop.push(self)
        return 0

    cdef int add_buffered(self, Buffered writer) except -1:
        """Have `writer` flushed when this fiber next waits."""
        if self.buffered is None:
            self.buffered = writer
        elif type(self.buffered) is list:
            (<list>self.buffered).append(writer)
        else:
            self.buffered = [self.buffered, writer]
        return 0

    cdef int drop_buffered(self, Buffered writer) except -1:
        """Undo `add_buffered`, where it has nothing left to send."""
        if self.buffered is writer:
            self.buffered = None
        elif type(self.buffered) is list and writer in <list>self.buffered:
            (<list>self.buffered).remove(writer)
            if not self.buffered:
                self.buffered = None
        return 0

    cdef int flush_buffered(self) except -1:
        """Send what it has buffered; 1 when that had to wait."""
        cdef Buffered writer
        cdef int waited = 0
        while self.buffered is not None:
            if type(self.buffered) is list:
                writer = (<list>self.buffered).pop(0)
                if not self.buffered:
                    self.buffered = None
            else:
                writer = self.buffered
                self.buffered = None
            waited |= writer.flush_quietly()
        return waited

    cdef int execute(self) except -1:
        """Run the function; no exception of it leaves this method.

        Whatever is on the stack while the function runs is copied each time the fiber parks. So
        exceptions are handled in a method of their own.
        """
        cdef PyObject *result
        PyContext_Enter(self.context)
        result = PyObject_Call(self.function, self.arguments, NULL)
        self.arguments = None
        if result is NULL:
            self.handle_current()
        else:
            Py_XDECREF(result)
        while self.buffered is not None:
            self.flush_last()
        PyContext_Exit(self.context)
        return self.finish()

    cdef int handle_current(self) except -1:
        """Handle the exception that is set."""
        try:
            raise_current()
        except BaseException as error:
            self.handle_error(error)
        return 0

    cdef int handle_error(self, error) except -1:
        if isinstance(error, KeyboardInterrupt) or began_in_signal_handler(error):
            self.hub.escaped = error
        elif isinstance(error, (FiberExit, SystemExit)):
            return 0              # ends this fiber only, as it would end a thread only
        else:
            self.hub.report(self, error)
        return 0

    cdef int keep_error(self) noexcept:
        """Keep what was thrown into the greenlet as the pending exception of the fiber."""
        try:
            raise_current()
        except BaseException as error:
            self.pending_exception = error
        return 0

    cdef int raise_pending(self) except -1:
        error, self.pending_exception = self.pending_exception, None
        raise error

    cdef int flush_last(self) except -1:
        """Send what is buffered at the end of the fiber; a kill drops the stream that is waiting."""
        try:
            self.flush_buffered()
        except BaseException as error:
            self.handle_error(error)
        return 0

    cdef int finish(self) except -1:
        """Mark the fiber dead, and notify what waits for its end."""
        cdef Host hub = self.hub
        self.state = TASK_DONE
        self.arguments = self.context = self.buffered = self.pending_exception = None
        self.greenlet = None
        hub.loop.disarm(self)
        hub.alive.discard(self)
        if self.joiners is not None:
            joiners, self.joiners = self.joiners, None
            for callback in joiners:
                callback()
        return 0

    def wake(self):
        """Make it ready to run if it is parked. For any thread; its park may end early."""
        if self.hub.is_here():
            self.hub.loop.push(self)
        else:
            self.hub.call_from_thread(self.wake)

    def kill(self, exc=None):
        """Raise `exc` (default: a `FiberExit`) where the fiber is parked. For any thread.

        A fiber that has not begun never begins; a dead one stays dead; in the running one, `exc`
        is raised from this call.
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
        if not isinstance(self.pending_exception, FiberExit):
            self.pending_exception = exc
        self.hub.loop.push(self)

    def join(self, timeout=None):
        """Wait until it is dead, at most `timeout` seconds (None: for ever); True if it is."""
        if self.state == TASK_DONE:
            return True
        return self.hub.await_end(self, timeout)

    def on_end(self, callback):
        """Call `callback()` in the hub's thread when the fiber has ended; at once if it has."""
        if self.state == TASK_DONE:
            callback()
        elif self.joiners is None:
            self.joiners = [callback]
        else:
            self.joiners.append(callback)

    def remove_on_end(self, callback):
        """Undo `on_end`."""
        if self.joiners is not None and callback in self.joiners:
            self.joiners.remove(callback)


cdef class Host:
    """What a fiber knows of its hub."""

    cpdef bint is_here(self):
        """Whether this is the thread that turns the hub, or the hub has not been turned yet."""
        raise NotImplementedError

    cdef int report(self, Fiber fiber, error) except -1:
        raise NotImplementedError
