# The types of `limits.py` where it is compiled.
cimport cython

# Not looked up by name at each use.
cdef object monotonic, host_of


cdef class TokenBucket:
    cdef readonly double rate, burst
    cdef readonly object asked
    cdef object _now, _lock
    cdef double _tokens, _at
    cdef Py_ssize_t _returned

    @cython.locals(now=double)
    cpdef double wait(self) except -1
    cpdef bint take(self) except -1
    cpdef give_back(self)
    cpdef Py_ssize_t available(self) except -1
    cdef Py_ssize_t _take_returned(self) except -1


cpdef object key_of(address)
