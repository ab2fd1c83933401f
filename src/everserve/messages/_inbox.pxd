# What the conversation sees of the compiled inbox.
from everserve.messages._outbox cimport Outbox
from everserve.messages._replies cimport Replies


cdef class Inbox:
    cdef readonly object sock
    cdef readonly object hub
    cdef readonly object parking
    cdef readonly list rest
    cdef Py_ssize_t needed

    cpdef tuple unread(self)
    cpdef take_unread(self, rest, Py_ssize_t needed)
    cpdef Replies replies_for(self, codec, Outbox outbox)
    cpdef bint is_draining(self) except -1
    cpdef park(self, conversation)
    cpdef object serve(self, handler, replies, handle)
    cdef object receive(self)
    cpdef bint take(self, bytes data, handler, replies, handle) except -1
