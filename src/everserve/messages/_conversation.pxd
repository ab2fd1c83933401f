# The types of `conversation.py` where it is compiled.
cimport cython
from everserve.messages._inbox cimport Inbox as In
from everserve.messages._outbox cimport Outbox as Out
from everserve.messages._replies cimport Replies as Held


cdef class Conversation:
    cdef readonly object handler
    cdef readonly object host
    cdef readonly object connection
    cdef readonly In inbox
    cdef readonly Out outbox
    cdef public object replies
    cdef public bint parked
    cdef readonly bint fresh
    cdef public object key
    cdef public list channels
    cdef public object request
    cdef public object context

    @cython.locals(replies=Held)
    cpdef bint serve(self) except -1
    cpdef resume(self)
    cpdef park(self)
    cpdef call_of(self, handler)
    cpdef bint waits_after(self, served) except -1
