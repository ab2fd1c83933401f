"""The compiled hot path of `FiberSocket`: recv, recv_into, send, sendall, shutdown and close.

It stands above the transfer of bytes, and beside the streams; `sockets.py` is its reference, and its
base class for everything that is not hot.
"""
import _socket

from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from everserve.fibers._loop cimport READING, WRITING, Watch
from everserve.fibers._slots cimport slot, slot_offset
from everserve.fibers._scheduler cimport Scheduler, running_hub
from everserve.fibers._transfer cimport (
    await_in_time, check_open, flush_first, get_writable, limit_of, raise_errno, receive, receive_by,
    refuse_closed, sys_shutdown, time_out, transmit, transmit_all, try_receive,
)

from everserve.fibers import sockets as reference

cdef extern from *:
    """
    #include <sys/socket.h>
    """
    bint PyObject_TypeCheck(object o, type t)
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size) except NULL
    char *text_of "PyBytes_AS_STRING"(PyObject *bytes)
    int _PyBytes_Resize(PyObject **bytes, Py_ssize_t size) except -1
    enum:
        AF_INET
        AF_INET6
        MSG_PEEK
        MSG_WAITALL
        SOCK_NONBLOCK
        SOCK_STREAM

cdef enum:
    SCRATCH = 65536              # the hub's shared read buffer
    LEAST_IN_PLACE = 4096        # a shorter read is copied from the scratch buffer

cdef object c_socket = _socket.socket
cdef object c_init = c_socket.__init__
cdef object c_close = c_socket.close

cdef type fiber_socket_type = None
cdef Py_ssize_t watch_offset = -1


cdef Watch watch_of(object sock):
    cdef PyObject *found
    if not PyObject_TypeCheck(sock, fiber_socket_type):
        raise TypeError(f"a FiberSocket is needed, not {type(sock).__name__}")
    found = slot(sock, watch_offset)
    if found is NULL:
        refuse_closed()
    return <Watch>found


cdef object receive_bytes(Watch watch, Py_ssize_t size, int flags):
    """Read a bytes object. Nothing is allocated for it while it waits."""
    cdef Scheduler hub = running_hub()
    cdef PyObject *found = NULL
    if size < 0:
        raise ValueError("negative buffersize in recv")
    if size == 0:
        return b""                 # as CPython does: recv(2) would wait for data
    if flags & MSG_WAITALL and watch.timeout < 0.0:
        return receive_all(watch, size, flags)
    if hub is not None:
        hub.checkpoint()
    if receive_by(try_receive_bytes, hub, watch, &found, size, flags) < 0:
        time_out()
    data = <object>found
    Py_DECREF(data)
    return data


cdef Py_ssize_t try_receive_bytes(Scheduler hub, Watch watch, void *target, size_t size,
                                  int flags) except -2:
    """Read a bytes object, a reference that the caller owns, into the pointer at `target`."""
    cdef PyObject **found = <PyObject **>target
    cdef Py_ssize_t count
    if hub is None or watch.expected >= LEAST_IN_PLACE or (
            size > SCRATCH and (flags != 0 or not watch.infers)):
        return try_receive_in_place(watch, found, size, flags)
    count = try_receive(watch, hub.scratch, min(size, SCRATCH), flags)
    if count >= 0:
        watch.expected = count
        found[0] = new_bytes(hub.scratch, count)
    return count


cdef Py_ssize_t try_receive_in_place(Watch watch, PyObject **found, Py_ssize_t size,
                                     int flags) except -2:
    """As `try_receive_bytes`, of long data, without copying it.

    Asks for twice of what the last read found: a block of that size is cheaper to allocate and to
    shrink than one of all that the caller would take (16 KiB echo: a seventh). A message is read with
    all that the caller would take: the kernel drops what a read leaves of it.
    """
    cdef PyObject *fresh
    cdef Py_ssize_t count = -1
    if watch.expected and watch.is_stream:
        size = min(size, max(LEAST_IN_PLACE, 2 * watch.expected))
    fresh = new_bytes(NULL, size)
    try:
        count = try_receive(watch, text_of(fresh), size, flags)
    finally:
        if count < 0:
            Py_DECREF(<object>fresh)
    if count >= 0:
        watch.expected = count
        if count < size:
            _PyBytes_Resize(&fresh, count)
        found[0] = fresh
    return count


cdef bytes receive_all(Watch watch, Py_ssize_t size, int flags):
    cdef bytes found = PyBytes_FromStringAndSize(NULL, size)
    cdef Py_ssize_t count = fill(watch, PyBytes_AS_STRING(found), size, flags)
    return found if count == size else found[:count]


cdef Py_ssize_t fill(Watch watch, char *target, Py_ssize_t size, int flags) except -1:
    """Read all of `size`, less only at the end: MSG_WAITALL, which the kernel ignores here."""
    cdef Py_ssize_t done = 0, count
    while done < size:
        count = receive(watch, target + done, size - done, flags & ~MSG_WAITALL)
        done += count
        if count == 0 or flags & MSG_PEEK:
            break
    return done


# --- the methods --------------------------------------------------------------------------------


def recv(self, Py_ssize_t bufsize, int flags=0):
    """Receive at most `bufsize` bytes; empty at the end of the peer's data."""
    return receive_bytes(watch_of(self), bufsize, flags)


def recv_into(self, buffer, Py_ssize_t nbytes=0, int flags=0):
    """Receive into `buffer`, at most `nbytes` (0: its length); the number of bytes."""
    cdef Watch watch = watch_of(self)
    cdef Py_buffer view
    if nbytes < 0:
        raise ValueError("negative buffersize in recv_into")
    get_writable(buffer, &view)
    try:
        if nbytes == 0:
            nbytes = view.len
        elif view.len < nbytes:
            raise ValueError("buffer too small for requested bytes")
        if nbytes == 0:
            return 0
        if flags & MSG_WAITALL and watch.timeout < 0.0:
            return fill(watch, <char *>view.buf, nbytes, flags)
        return receive(watch, view.buf, nbytes, flags)
    finally:
        PyBuffer_Release(&view)


def send(self, data, int flags=0):
    """Send some of `data`; the number of bytes."""
    cdef Watch watch = watch_of(self)
    cdef Scheduler hub = running_hub()
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if watch.buffered is not None:
            flush_first(watch)
        if hub is not None:
            hub.checkpoint()
        return transmit(watch, view.buf, view.len, flags, limit_of(watch))
    finally:
        PyBuffer_Release(&view)


def sendall(self, data, int flags=0):
    """Send all of `data`."""
    cdef Watch watch = watch_of(self)
    if PyBytes_CheckExact(data):           # kept by the caller: no view and no finally needed
        transmit_all(watch, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), flags)
    else:
        send_view(watch, data, flags)


cdef int send_view(Watch watch, data, int flags) except -1:
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return transmit_all(watch, <const char *>view.buf, view.len, flags)
    finally:
        PyBuffer_Release(&view)


def wait(self, bint writing, limit):
    """Wait until the descriptor may be ready, or until `limit` (None: for ever)."""
    cdef Watch watch = watch_of(self)
    check_open(watch)
    if writing:
        watch.writable = False
        watch.refused |= WRITING
    else:
        watch.readable = False
        watch.refused |= READING
    await_in_time(running_hub(), watch, writing, -1.0 if limit is None else limit)
    check_open(watch)


cpdef object receive_now(self, Py_ssize_t bufsize):
    """Receive what is there, at most `bufsize` bytes; None if nothing is."""
    cdef Watch watch = watch_of(self)
    cdef Scheduler hub = running_hub()
    cdef PyObject *found = NULL
    check_open(watch)
    if hub is not None:
        hub.checkpoint()
        if not watch.readable:
            return None
    if try_receive_bytes(hub, watch, &found, bufsize, 0) < 0:
        return None
    data = <object>found
    Py_DECREF(data)
    return data


def park(self, function):
    """Have a fiber of this hub run `function()` when there is something to receive.

    Until then no fiber waits. False if there may be something now. Only a fiber may call it.
    """
    cdef Scheduler hub = running_hub()
    return hub is not None and hub.park_watch(watch_of(self), function)


def resume_soon(self, function):
    """Have a fiber of this hub run `function()` soon. Only a fiber may call it."""
    running_hub().loop.awakened.append(function)


def resume_parked(self):
    """Have what is parked run now. In the thread of the hub."""
    cdef Watch watch = watch_of(self)
    if watch.parked is not None and watch.loop is not None:
        watch.loop.awaken(watch)


def unpark(self):
    """Take away what is parked; false if it runs, or soon does. In the thread of the hub."""
    cdef Watch watch = watch_of(self)
    parked, watch.parked = watch.parked, None
    return parked is not None


def checkpoint(self):
    """Count an operation, so that a fiber that never waits gives way to the others."""
    cdef Scheduler hub = running_hub()
    if hub is not None:
        hub.checkpoint()


def flush_buffered(self):
    """Send what a stream of this socket has buffered."""
    cdef Watch watch = watch_of(self)
    if watch.buffered is not None:
        flush_first(watch)


def close_socket(self):
    """Close the socket, or leave that to its last file. One call instead of four in Python."""
    self._closed = True
    if self._io_refs > 0:
        return
    if type(self) is fiber_socket_type:
        watch_of(self).release()
        c_close(self)
    else:
        self._real_close()


def shutdown(self, int how):
    """Shut down one direction or both, after what a stream has buffered was sent."""
    cdef Watch watch = watch_of(self)
    if watch.buffered is not None:
        flush_first(watch)
    if sys_shutdown(watch.fd, how) < 0:
        raise_errno()


# --- making them --------------------------------------------------------------------------------


def new_watch(int fd, int family, int kind):
    """Make the state of one descriptor. Only with TCP a short read means that nothing is left."""
    cdef bint is_stream = kind & 0xf == SOCK_STREAM
    cdef Watch watch = Watch(fd, is_stream and (family == AF_INET or family == AF_INET6))
    watch.is_stream = is_stream
    return watch


def get_timeout(self):
    cdef Watch watch = watch_of(self)
    return None if watch.timeout < 0 else watch.timeout


def set_timeout(self, timeout):
    watch_of(self).timeout = -1.0 if timeout is None else <double>timeout


def release(self):
    """Wake what waits for the descriptor, which is about to be closed or detached."""
    watch_of(self).release()


def mark_duplicated(self):
    watch_of(self).duplicated = True


cpdef object adopt(cls, int fd, int family, int kind, int proto):
    """Make a socket of `cls` that owns `fd`, which is non-blocking already."""
    sock = c_socket.__new__(cls)
    c_init(sock, family, kind | SOCK_NONBLOCK, proto, fd)
    sock._io_refs = 0
    sock._closed = False
    sock._watch = new_watch(fd, family, kind)
    return sock


class FiberSocket(reference.FiberSocket):
    """The compiled engine's `FiberSocket`."""

    __slots__ = ()

    recv = recv
    recv_into = recv_into
    send = send
    sendall = sendall
    close = close_socket
    shutdown = shutdown
    _wait = wait
    _flush_buffered = flush_buffered
    _checkpoint = checkpoint
    _receive_now = receive_now
    _park = park
    _resume_parked = resume_parked
    _resume_soon = resume_soon
    _unpark = unpark
    _release = release
    _set_timeout = set_timeout
    _mark_duplicated = mark_duplicated
    _new_watch = staticmethod(new_watch)
    _adopt = classmethod(adopt)
    gettimeout = get_timeout
    timeout = property(get_timeout)


fiber_socket_type = FiberSocket
watch_offset = slot_offset(reference.FiberSocket.__dict__["_watch"])
