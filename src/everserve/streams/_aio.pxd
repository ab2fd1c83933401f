# The types of `aio.py` where it is compiled.
cimport cython

cdef object Ready, _NOTHING      # not looked up by name at each use

from everserve.streams._reader cimport Reader as Lines


@cython.freelist(16)
cdef class Filling:
    cdef AsyncReader _reader


cdef class Doing:
    cdef object _carrier
    cdef object _error
    cdef object _function
    cdef object _result


cdef class AsyncReader:
    cdef Lines _reader
    cdef readonly object carrier
    cdef bint is_filling
    cdef object error
    cdef object filler
    cdef Py_ssize_t _count
    cdef object _waiter

    cdef object check_free(self)
    cpdef receive(self)
    cdef Py_ssize_t take_count(self) except -1
    cdef object fill_elsewhere(self)


cdef class AsyncWriter:
    cdef object _sock
    cdef object _carrier
    cdef bint _sends_at_once
    cdef bint _joins
    cdef list _parts
    cdef Py_ssize_t _length
    cdef Py_ssize_t _in_flight
    cdef bytes _sending
    cdef object _sender
    cdef bint _is_dirty
    cdef list _waiters
    cdef object _error
    cdef readonly bint closed

    cpdef send(self)
    cdef object _refuse(self)
    cdef bytes _take_next(self)
    cdef object _fail(self, error)
    cdef object _notify(self)
