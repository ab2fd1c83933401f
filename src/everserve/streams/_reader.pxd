# What `open_stream` sees of the reading half.
from everserve.streams._half cimport Half
from everserve.streams._writer cimport Writer


cdef class Reader(Half):
    cdef char *buffer
    cdef Py_ssize_t start        # of the bytes that have not been read
    cdef Py_ssize_t end
    cdef Py_ssize_t capacity
    cdef Py_ssize_t longest      # max_line; negative: any
    cdef Py_ssize_t seen         # bytes of the buffer in which `take_line` found no newline
    cdef int reads
    cdef bint timed_out
    cdef bint busy               # a thread waits in the kernel with the buffer
    cdef Writer writer           # flushed before this half waits
    cdef object below            # the unbuffered file, where a program has asked for it

    cdef void drop_buffer(self) noexcept
    cdef int make_room(self) except -1
    cdef int take_buffer(self) except -1
    cdef int shrink(self) except -1
    cdef Py_ssize_t fill(self) except -3
    cdef int check_readable(self) except -1
    cdef Py_ssize_t fill_by_fiber(self) except -3
    cdef Py_ssize_t read_descriptor(self, char *target, Py_ssize_t size) except -3
    cdef Py_ssize_t fill_by_methods(self) except -3
    cdef int take_in(self, found, Py_ssize_t count) except -1
    cdef int count_read(self) except -1
    cdef int checkpoint(self) except -1
    cdef bytes read_line(self, Py_ssize_t size)
    cdef int refuse_line(self) except -1
    cdef bytes cut(self, Py_ssize_t size)
    cdef object read_all(self)
    cdef object read_exactly(self, Py_ssize_t size)
    cdef object gather(self, Py_ssize_t size)
    cdef Py_ssize_t read_straight(self, char *target, Py_ssize_t size) except -3
    cdef object read_view(self, target, bint wholly)
    cpdef Py_ssize_t receive(self) except -1
    cpdef bytes take(self, Py_ssize_t size=*)
    cpdef bytes take_line(self)
