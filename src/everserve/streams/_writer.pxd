# What the reader and `open_stream` see of the writing half.
from everserve.fibers._fiber cimport Fiber
from everserve.streams._half cimport Half


cdef class Writer(Half):
    cdef char *buffer
    cdef Py_ssize_t length
    cdef Py_ssize_t capacity
    cdef Py_ssize_t size         # high water mark; 0: unbuffered
    cdef bint coalesces
    cdef bint sending
    cdef Fiber holder            # in whose pending list this writer stands
    cdef object error            # what sending met, for the next call to raise
    cdef object lock             # two threads shall not send pieces of one buffer
    cdef list queue              # fibers that wait until another has sent

    cdef int raise_error(self) except -1
    cdef int add(self, data, const char *bytes_, Py_ssize_t size) except -1
    cdef int hold_back(self) except -1
    cdef int make_room(self, Py_ssize_t size) except -1
    cdef int settle(self) except -1
    cdef int push_out(self) except -1
    cdef int wait_for_turn(self) except -1
    cdef int send_held(self) except -1
    cdef int send_all(self, const char *data, Py_ssize_t size) except -1
    cdef int send_straight(self, data, const char *bytes_, Py_ssize_t size) except -1
    cdef int send_descriptor(self, const char *data, Py_ssize_t size) except -1
    cdef void try_last(self) noexcept
