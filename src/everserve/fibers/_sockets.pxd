# What accepting, the TLS sockets and the streams see of the compiled sockets.
from everserve.fibers._loop cimport Watch

cdef type fiber_socket_type

cdef Watch watch_of(object sock)
cdef object receive_bytes(Watch watch, Py_ssize_t size, int flags)
cpdef object adopt(cls, int fd, int family, int kind, int proto)
cpdef object receive_now(self, Py_ssize_t bufsize)
