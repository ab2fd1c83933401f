# What the reader and `open_stream` see of the writing half.
from everserve.fibers._fiber cimport Fiber
from everserve.streams._half cimport Half


cdef class Writer(Half):
    cdef char *buffer
    cdef Py_ssize_t length
    cdef Py_ssize_t capacity
    cdef Py_ssize_t size         # high water mark; 0: unbuffered
    cdef bint coalesces
    cdef bint is_unbuffered      # for the program
    cdef bint sending
    cdef Fiber holder            # the fiber that will flush this writer when it waits
    cdef object error            # of a send, for the next call to raise
    cdef object lock             # so that two threads do not send parts of one buffer
    cdef list waiting            # fibers that wait until the sender has sent

    cdef int raise_error(self) except -1
    cdef int add(self, data, const char *bytes_, Py_ssize_t size) except -1
    cdef int write_late(self, data) except -1
    cdef int flush_when_waiting(self) except -1
    cdef int make_room(self, Py_ssize_t size) except -1
    cdef int flush_quietly(self) except -1
    cdef int flush_buffer(self) except -1
    cdef int flush_by_thread(self) except -1
    cdef int send_alone(self) except -1
    cdef int wait_for_sender(self) except -1
    cdef int send_buffered(self) except -1
    cdef int send_all(self, const char *data, Py_ssize_t size) except -1
    cdef int send_straight(self, data, const char *bytes_, Py_ssize_t size) except -1
    cdef int send_descriptor(self, const char *data, Py_ssize_t size) except -1
    cdef int send_unclosed(self) except -1
