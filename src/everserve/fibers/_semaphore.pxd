# The types of `semaphore.py` where it is compiled. The TLS sockets take turns by one.
cdef bint COMPILED


cdef class Semaphore:
    cdef Py_ssize_t _value       # places that are free
    cdef list _queue             # waiters, first come first served
    cdef object _lock            # None where it is compiled

    cdef bint _take(self, waiter) except -1
    cdef bint _give(self) except -1
    cdef bint _leave(self, waiter) except -1


cdef bint _take(Semaphore semaphore, waiter) except -1
cdef bint _give(Semaphore semaphore) except -1
cdef bint _leave(Semaphore semaphore, waiter) except -1
