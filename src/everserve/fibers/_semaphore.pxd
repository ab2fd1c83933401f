# What the compiled TLS sockets, whose writers take turns by one, see of a semaphore.


cdef class Semaphore:
    cdef Py_ssize_t value        # places that are free
    cdef list queue              # waiters, first come first served

    cdef bint take(self) noexcept
    cdef int give(self) except -1
    cdef bint leave(self, waiter) except -1
