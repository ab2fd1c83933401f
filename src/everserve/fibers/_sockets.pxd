# What the compiled streams see of the sockets.
from everserve.fibers._loop cimport Watch

cdef type fiber_socket_type

cdef Watch watch_of(object sock)
cdef Py_ssize_t receive(Watch watch, void *buffer, size_t size, int flags) except -1
cdef Py_ssize_t receive_now(Watch watch, void *buffer, size_t size) except -2
cdef int await_readable(Watch watch, double limit) except -1
cdef double limit_of(Watch watch)
cdef Py_ssize_t transmit(Watch watch, const void *data, size_t size, int flags,
                         double limit) except -1
cdef int transmit_all(Watch watch, const char *data, size_t size, int flags) except -1
