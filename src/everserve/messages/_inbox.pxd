# What the conversation sees of the compiled inbox.
cdef class Inbox:
    cdef readonly object sock
    cdef readonly object hub
    cdef readonly object parking
    cdef readonly list rest
    cdef Py_ssize_t needed

    cpdef tuple unread(self)
    cpdef take_unread(self, rest, Py_ssize_t needed)
    cpdef object serve(self, handler, replies, handle)
    cdef object receive(self)
    cpdef bint take(self, bytes data, handler, replies, handle) except -1
