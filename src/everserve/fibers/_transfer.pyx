# cython: binding=False
"""Bytes in and out of a watched descriptor: attempts, and waits where an attempt would block.

It stands between the scheduler, on which its waits park, and the sockets and streams, which use it as
those of the standard library use recv(2) and send(2).
"""
import os

from everserve.fibers.threadwaits import check, narrowed

from cpython.buffer cimport PyBUF_WRITABLE
from cpython.exc cimport PyErr_CheckSignals, PyErr_Clear, PyErr_SetObject
from libc.string cimport memset
from libc.errno cimport EAGAIN, EBADF, EINTR, errno
from everserve.fibers._fiber cimport Buffered
from everserve.fibers._loop cimport READING, WRITING, Watch, monotonic
from everserve.fibers._scheduler cimport Scheduler, running_hub

cdef extern from *:
    """
    #include <poll.h>
    #include <sys/socket.h>
    """
    struct pollfd:
        int fd
        short events
        short revents
    int get_buffer "PyObject_GetBuffer"(object owner, Py_buffer *view, int flags)
    int sys_poll "poll"(pollfd *fds, unsigned long count, int timeout) nogil
    Py_ssize_t sys_recv "recv"(int fd, void *buffer, size_t size, int flags)
    Py_ssize_t sys_send "send"(int fd, const void *data, size_t size, int flags)
    Py_ssize_t sys_sendmsg "sendmsg"(int fd, const Message *message, int flags)
    struct Message "msghdr":
        Piece *pieces "msg_iov"
        size_t count "msg_iovlen"
    enum:
        MSG_NOSIGNAL
        POLLIN
        POLLOUT

# --- errors --------------------------------------------------------------------------------------

cdef dict error_texts = {}        # errno: its text


cdef int raise_errno() except -1:
    """Raise the OSError of errno. Its text is kept: strerror costs as much as everything else that
    the engine does for a connection that is reset (7,000 of its 15,000 instructions).
    """
    cdef int code = errno
    text = error_texts.get(code)
    if text is None:
        error_texts[code] = text = os.strerror(code)
    PyErr_SetObject(OSError, (code, text))
    return -1


cdef int refuse_closed() except -1:
    raise OSError(EBADF, os.strerror(EBADF))


cdef int time_out() except -1:
    raise TimeoutError("timed out")


cdef int would_block() except -1:
    raise BlockingIOError(EAGAIN, os.strerror(EAGAIN))


# --- waiting outside of a fiber --------------------------------------------------------------------


cdef int poll_once(int fd, short events, double limit) except -1:
    """Wait outside of any fiber, as an ordinary socket does; 0 when `limit` has passed.

    Raises what is to end the waits of this thread, such as a `Timeout` block.
    """
    cdef pollfd waited
    cdef double left
    cdef int found, milliseconds = -1
    nearest = narrowed(None if limit < 0.0 else limit)
    limit = -1.0 if nearest is None else <double>nearest
    while True:
        if limit >= 0.0:
            left = limit - monotonic()
            milliseconds = 0 if left <= 0 else <int>min(left * 1e3 + 1, 86_400_000.0)
        waited.fd = fd
        waited.events = events
        waited.revents = 0
        with nogil:
            found = sys_poll(&waited, 1, milliseconds)
        if found > 0:
            return 1
        if found < 0 and errno != EINTR:
            raise_errno()
        PyErr_CheckSignals()
        if limit >= 0.0 and monotonic() >= limit:
            check()
            return 0


cdef int await_outside(Watch watch, bint writing, double limit) except -1:
    """Wait where no fiber can park; 0 when `limit` has passed. Raises if the socket must not wait."""
    if watch.timeout == 0.0:
        would_block()
    if not poll_once(watch.fd, POLLOUT if writing else POLLIN, limit):
        return 0
    if writing:
        watch.writable = True
    else:
        watch.readable = True
    return 1


cdef int is_to_be_repeated(Watch watch, bint writing) except -1:
    """1 if a call was interrupted by a signal, 0 if it would block. Raises any other error of errno."""
    if errno == EAGAIN:
        if writing:
            watch.writable = False
            watch.refused |= WRITING
        else:
            watch.readable = False
            watch.refused |= READING
        return 0
    if errno != EINTR:
        raise_errno()
    PyErr_CheckSignals()
    return 1


cdef int get_writable(object target, Py_buffer *view) except -1:
    """The memory of a caller to receive into; TypeError where there is none, as in CPython."""
    if get_buffer(target, view, PyBUF_WRITABLE) < 0:
        PyErr_Clear()
        raise TypeError(f"a read-write bytes-like object is needed, not {type(target).__name__}")
    return 0


# --- in --------------------------------------------------------------------------------------------


cdef Py_ssize_t try_receive(Watch watch, void *buffer, size_t size, int flags) except -2:
    cdef Py_ssize_t count
    check_open(watch)
    while True:
        count = sys_recv(watch.fd, buffer, size, flags | MSG_DONTWAIT)
        if count >= 0:
            if <size_t>count < size and watch.infers and not watch.hung_up and flags == 0:
                # Empty for sure: the wait begins without asking the kernel for EAGAIN. That saves
                # one system call in three: a tenth of the throughput of a small echo.
                watch.readable = False
            return count
        if not is_to_be_repeated(watch, False):
            return -1


cdef Py_ssize_t receive(Watch watch, void *buffer, size_t size, int flags) except -1:
    """Read into `buffer` as recv(2) would on a blocking socket."""
    cdef Scheduler hub = running_hub()
    cdef Py_ssize_t count
    if hub is not None:
        hub.checkpoint()
    count = receive_by(try_receive_into, hub, watch, buffer, size, flags)
    return count if count >= 0 else time_out()


cdef Py_ssize_t try_receive_into(Scheduler hub, Watch watch, void *buffer, size_t size,
                                 int flags) except -2:
    return try_receive(watch, buffer, size, flags)


# --- out -------------------------------------------------------------------------------------------


cdef Py_ssize_t try_transmit(Watch watch, const void *data, size_t size, int flags) except -2:
    cdef Py_ssize_t count
    check_open(watch)
    while True:
        count = sys_send(watch.fd, data, size, flags | MSG_NOSIGNAL | MSG_DONTWAIT)
        if count >= 0:
            if <size_t>count < size and watch.infers:
                watch.writable = False
            return count
        if not is_to_be_repeated(watch, True):
            return -1


cdef Py_ssize_t try_transmit_pieces(Watch watch, Piece *pieces, int count) except -2:
    """As `try_transmit`, of bytes that lie in several places."""
    cdef Message message
    cdef Py_ssize_t sent
    check_open(watch)
    memset(&message, 0, sizeof(message))
    message.pieces = pieces
    message.count = count
    while True:
        sent = sys_sendmsg(watch.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
        if sent >= 0:
            return sent
        if not is_to_be_repeated(watch, True):
            return -1


cdef Py_ssize_t transmit(Watch watch, const void *data, size_t size, int flags,
                         double limit) except -1:
    """Send some of `data`, waiting until there is room for any."""
    cdef Scheduler hub = running_hub()
    cdef Py_ssize_t count
    while True:
        if watch.writable or hub is None or watch.timeout == 0.0:
            count = try_transmit(watch, data, size, flags)
            if count >= 0:
                return count
        refuse_to_wait(watch, flags)
        await_in_time(hub, watch, True, limit)
        check_open(watch)


cdef int flush_first(Watch watch) except -1:
    """Send what a stream of this socket has buffered, before anything that goes past the stream."""
    cdef Buffered writer = watch.buffered
    writer.flush_quietly()
    return 0


cdef int transmit_all(Watch watch, const char *data, size_t size, int flags) except -1:
    """Send all of `data`; the timeout of the socket is for the whole."""
    cdef Scheduler hub = running_hub()
    cdef size_t done = 0
    cdef Py_ssize_t count
    cdef double limit = -2.0
    if watch.buffered is not None:
        flush_first(watch)
    if hub is not None:
        hub.checkpoint()
    while True:
        if watch.writable or hub is None or watch.timeout == 0.0:
            count = try_transmit(watch, data + done, size - done, flags)
            if count >= 0:
                done += count
                if done >= size:
                    return 0
                if hub is not None:
                    hub.checkpoint()     # a peer that reads as fast may never let it wait
                continue
        if limit == -2.0:
            refuse_to_wait(watch, flags)
            limit = limit_of(watch)
        await_in_time(hub, watch, True, limit)
        check_open(watch)
