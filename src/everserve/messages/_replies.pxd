# What the inbox sees of the compiled replies.
from everserve.fibers._fiber cimport Buffered, Fiber
from everserve.messages._outbox cimport Outbox


cdef class Replies(Buffered):
    cdef object codec
    cdef Outbox outbox
    cdef object error
    cdef list waiting
    cdef Fiber holder            # the fiber that sends them when it waits
    cdef bint is_eager
    cdef double began
    cdef object carrier          # of coroutines
    cdef public bint stopped     # no more messages are handled

    cpdef answer(self, list messages, handle)
    cpdef add(self, reply)
    cpdef flush(self)
    cdef object run_coroutine(self, coroutine)
    cdef int hold(self, Fiber fiber) except -1
