# The types of `outbox.py` where it is compiled.
cdef bint COMPILED


cdef class Outbox:
    cdef object _sock
    cdef object _hub
    cdef bint _sending
    cdef bint _closed
    cdef object _pending
    cdef object _room
    cdef object _then

    cpdef send(self, bytes data)
    cdef int _send_all(self, data) except -1
    cdef bint _claim(self) except -1
    cdef int _add(self, bytes data, Py_ssize_t most) except -1
    cdef object _next(self)


cdef bint _claim(Outbox outbox) except -1
cdef int _add(Outbox outbox, bytes data, Py_ssize_t most) except -1
cdef object _next(Outbox outbox)
