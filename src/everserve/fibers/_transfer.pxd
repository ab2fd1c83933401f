# Bytes in and out of a watched descriptor, for the sockets and the streams. What is between a call and
# the switch is inlined from here: everything on the stack of a parked fiber is saved.
from everserve.fibers._loop cimport Watch, monotonic
from everserve.fibers._scheduler cimport Scheduler

cdef extern from "<sys/socket.h>":
    int sys_shutdown "shutdown"(int fd, int how)
    enum:
        MSG_DONTWAIT
        MSG_MORE

cdef extern from "<sys/uio.h>":
    struct Piece "iovec":
        void *data "iov_base"
        size_t size "iov_len"

cdef int raise_errno() except -1
cdef int refuse_closed() except -1
cdef int time_out() except -1
cdef int would_block() except -1
cdef int await_outside(Watch watch, bint writing, double limit) except -1
cdef int await_readable(Watch watch, double limit) except -1
cdef int poll_once(int fd, short events, double limit) except -1
cdef Py_ssize_t try_receive(Watch watch, void *buffer, size_t size, int flags) except -2
cdef Py_ssize_t receive(Watch watch, void *buffer, size_t size, int flags) except -1
cdef Py_ssize_t transmit(Watch watch, const void *data, size_t size, int flags,
                         double limit) except -1
cdef Py_ssize_t try_transmit(Watch watch, const void *data, size_t size, int flags) except -2
cdef Py_ssize_t try_transmit_pieces(Watch watch, Piece *pieces, int count) except -2
cdef int transmit_all(Watch watch, const char *data, size_t size, int flags) except -1
cdef int flush_first(Watch watch) except -1


cdef inline double limit_of(Watch watch):
    return -1.0 if watch.timeout < 0.0 else monotonic() + watch.timeout


cdef inline int refuse_to_wait(Watch watch, int flags) except -1:
    """MSG_DONTWAIT has an effect where no timeout is set, as with `socket.socket`."""
    return would_block() if flags & MSG_DONTWAIT and watch.timeout < 0.0 else 0


cdef inline int check_open(Watch watch) except -1:
    return refuse_closed() if watch.fd < 0 else 0


cdef inline int await_io(Scheduler hub, Watch watch, bint writing, double limit) except -1:
    """Wait for the descriptor, in whatever way this thread can; raises when `limit` passes."""
    if hub is None or watch.timeout == 0.0:
        return await_outside(watch, writing, limit)
    return 0 if hub.await_io(watch, writing, limit) else time_out()


cdef inline bint worth_trying(Scheduler hub, Watch watch, int flags):
    """Events keep `readable` true only while a fiber's hub looks after them."""
    return watch.readable or hub is None or watch.timeout == 0.0 or flags != 0
