# cython: binding=False
"""The compiled replies to messages that came together; `replies.py` is its reference."""
from cpython.object cimport PyObject
from everserve.fibers._fiber cimport Buffered, Fiber
from everserve.fibers._loop cimport monotonic
from everserve.fibers._scheduler cimport Scheduler, running_hub
from everserve.messages._outbox cimport Outbox
from everserve.wire._codec cimport encode_many

from types import CoroutineType

from everserve.fibers._carrying import carrier_for
from everserve.wire.codec import is_several

cdef extern from "Python.h":
    bint PyMethod_Check(object function)
    PyObject *PyMethod_GET_FUNCTION(object method)
    PyObject *PyMethod_GET_SELF(object method)
    object PyObject_Vectorcall(PyObject *function, PyObject **arguments, size_t count, PyObject *names)
    enum:
        PY_VECTORCALL_ARGUMENTS_OFFSET

cdef double LONGEST_HOLD = 0.001   # seconds for which a thread holds a reply back


cdef class Replies(Buffered):
    """Replies, in order, for an outbox; an error of it in a wait is raised at the next.

    In a fiber they are sent before it waits for anything. A thread sends them after a millisecond, and
    each message of an iterator at once, as it cannot know how long the next one takes.
    """
    def __cinit__(self, codec, Outbox outbox):
        self.codec = codec
        self.outbox = outbox
        self.waiting = []
        self.is_eager = running_hub() is None

    cpdef answer(self, list messages, handle):
        """Handle `messages`, one after the other, and send the replies, also those before an error."""
        cdef Scheduler hub = running_hub()
        # A bound method is called by its function: that saves a tenth of the call.
        cdef PyObject *function = <PyObject *>handle
        cdef PyObject *arguments[3]
        cdef int count = 1
        if PyMethod_Check(handle):
            function = PyMethod_GET_FUNCTION(handle)
            arguments[1] = PyMethod_GET_SELF(handle)
            count = 2
        if self.is_eager:
            self.began = monotonic()
        try:
            for message in messages:
                if self.holder is None and hub is not None:
                    self.hold(hub.current)
                arguments[count] = <PyObject *>message
                reply = PyObject_Vectorcall(
                    function, &arguments[1], count | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
                if type(reply) is bytes:
                    self.waiting.append(reply)
                elif reply is not None:
                    self.add(reply)
                if self.is_eager and monotonic() - self.began > LONGEST_HOLD:
                    self.flush()
                if self.stopped:
                    break
        finally:
            self.flush()
            if self.holder is not None:
                self.holder.drop_buffered(self)
                self.holder = None

    cpdef add(self, reply):
        """Add a reply that is no `bytes`: an object of the codec, several messages, or a coroutine."""
        cdef bint at_once
        cdef Scheduler hub
        if type(reply) is CoroutineType:
            reply = self.run_coroutine(reply)
        if not is_several(self.codec, reply):
            if reply is not None:
                self.waiting.append(reply)
            return
        at_once = self.is_eager and hasattr(reply, "__next__")
        for message in reply:
            hub = running_hub()
            if hub is not None:
                self.hold(hub.current)
            self.waiting.append(message)
            if at_once:
                self.flush()

    cdef object run_coroutine(self, coroutine):
        if self.carrier is None:
            self.carrier = carrier_for(coroutine, "handle_message")
        return self.carrier.drive(coroutine)

    def end(self):
        """No more come: end the task in which coroutines ran."""
        if self.carrier is not None:
            self.carrier.end()

    cdef int hold(self, Fiber fiber) except -1:
        """Have them sent when this fiber waits."""
        if fiber is not self.holder:
            self.holder = fiber
            fiber.add_buffered(self)
        return 0

    cpdef flush(self):
        """Send them, and wait for that. Raises the error of an earlier send too."""
        if self.error is not None:
            error, self.error = self.error, None
            self.waiting = []
            raise error
        if self.waiting:
            waiting, self.waiting = self.waiting, []
            self.outbox.send(encode_many(self.codec, waiting))

    cdef int flush_quietly(self) except -1:
        """Send them before the fiber waits; 1 if that waited itself."""
        cdef Scheduler hub = running_hub()
        cdef unsigned long long before = 0
        self.holder = None
        if not self.waiting:
            return 0
        if hub is not None:
            before = hub.switches
        try:
            self.flush()
        except OSError as error:
            self.error = error
        return hub is not None and hub.switches != before
