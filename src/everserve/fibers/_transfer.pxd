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
cdef int poll_once(int fd, short events, double limit) except -1
cdef Py_ssize_t try_receive(Watch watch, void *buffer, size_t size, int flags) except -2
cdef Py_ssize_t receive(Watch watch, void *buffer, size_t size, int flags) except -1
cdef Py_ssize_t transmit(Watch watch, const void *data, size_t size, int flags,
                         double limit) except -1
cdef Py_ssize_t try_transmit(Watch watch, const void *data, size_t size, int flags) except -2
cdef Py_ssize_t try_transmit_pieces(Watch watch, Piece *pieces, int count) except -2
cdef int transmit_all(Watch watch, const char *data, size_t size, int flags) except -1
cdef int flush_first(Watch watch) except -1
cdef int get_writable(object target, Py_buffer *view) except -1


cdef inline double limit_of(Watch watch):
    return -1.0 if watch.timeout < 0.0 else monotonic() + watch.timeout


cdef inline int refuse_to_wait(Watch watch, int flags) except -1:
    """MSG_DONTWAIT has an effect where no timeout is set, as with `socket.socket`."""
    return would_block() if flags & MSG_DONTWAIT and watch.timeout < 0.0 else 0


cdef inline int check_open(Watch watch) except -1:
    return refuse_closed() if watch.fd < 0 else 0


cdef inline int await_io(Scheduler hub, Watch watch, bint writing, double limit) except -1:
    """Wait for the descriptor in a fiber or in a thread; 0 when `limit` has passed."""
    if hub is None or watch.timeout == 0.0:
        return await_outside(watch, writing, limit)
    return hub.await_io(watch, writing, limit)


cdef inline int await_in_time(Scheduler hub, Watch watch, bint writing, double limit) except -1:
    """As `await_io`, but raises when `limit` has passed."""
    return 1 if await_io(hub, watch, writing, limit) else time_out()


cdef inline bint worth_trying(Scheduler hub, Watch watch, int flags):
    """Whether to ask the kernel. `readable` is kept up to date only while a fiber waits for events."""
    return watch.readable or hub is None or watch.timeout == 0.0 or flags != 0


# One attempt to receive: how many bytes, or -1 when none are there.
ctypedef Py_ssize_t (*Attempt)(Scheduler hub, Watch watch, void *target, size_t size,
                               int flags) except -2


cdef inline Py_ssize_t receive_by(Attempt attempt, Scheduler hub, Watch watch, void *target,
                                  size_t size, int flags) except -2:
    """Repeat `attempt`, waiting before each further one, until it finds something; -1 when it is late.

    Everything that receives uses this loop. It is inlined there, and the attempt into it.
    """
    cdef Py_ssize_t count
    cdef double limit = -2.0     # not known before the first wait
    while True:
        if worth_trying(hub, watch, flags):
            count = attempt(hub, watch, target, size, flags)
            if count >= 0:
                return count
        if limit == -2.0:
            refuse_to_wait(watch, flags)
            limit = limit_of(watch)
        if not await_io(hub, watch, False, limit):
            return -1
        check_open(watch)
