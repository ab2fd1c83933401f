# The types of `conversation.py` where it is compiled.
cdef class Conversation:
    cdef readonly object handler
    cdef readonly object host
    cdef readonly object connection
    cdef readonly object parking
    cdef readonly object sock
    cdef readonly object hub
    cdef readonly object outbox
    cdef public object replies
    cdef readonly list rest
    cdef Py_ssize_t needed
    cdef public bint parked
    cdef readonly bint fresh
    cdef public object key
    cdef public list channels
    cdef public object request
    cdef public object context

    cpdef bint serve(self) except -1
    cpdef resume(self)
    cpdef park(self)
    cpdef call_of(self, handler)
    cpdef send(self, messages)
    cpdef bint serve_by(self, codec, replies) except -1
    cdef object receive(self)
    cpdef bint take(self, bytes data, codec, replies, handle) except -1
    cdef object refuse(self, error, replies)
