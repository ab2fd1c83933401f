"""The compiled hot path of `FiberSocket`: recv, recv_into, send, sendall and accepting in batches.

It stands between the hub, on which its waits park, and the streams; `sockets.py` is its reference
and does everything that is not hot.
"""
import errno as codes
import os
import socket

from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_AS_STRING
from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memcpy
from posix.unistd cimport close
from everserve.fibers._hub cimport Corked, Hub, running_hub
from everserve.fibers._loop cimport Watch, monotonic

from everserve.fibers import sockets as reference

cdef extern from *:
    """
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <poll.h>
    #include <stddef.h>
    #include <structmember.h>      /* PyMemberDef, until Python 3.12 */
    #include <sys/socket.h>
    #include <sys/un.h>

    static Py_ssize_t everserve_slot_offset(PyObject *descriptor) {
        if (!Py_IS_TYPE(descriptor, &PyMemberDescr_Type)) return -1;
        return ((PyMemberDescrObject *)descriptor)->d_member->offset;
    }
    static inline PyObject *everserve_slot(PyObject *object, Py_ssize_t offset) {
        return *(PyObject **)((char *)object + offset);
    }
    """
    Py_ssize_t slot_offset "everserve_slot_offset"(object descriptor)
    PyObject *slot "everserve_slot"(object owner, Py_ssize_t offset)
    bint PyObject_TypeCheck(object o, type t)
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size) except NULL
    char *text_of "PyBytes_AS_STRING"(PyObject *bytes)
    int _PyBytes_Resize(PyObject **bytes, Py_ssize_t size) except -1

    ctypedef unsigned int socklen_t
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        pass
    struct in_addr:
        pass
    struct in6_addr:
        pass
    struct sockaddr_in:
        unsigned short sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_port
        unsigned int sin6_flowinfo
        in6_addr sin6_addr
        unsigned int sin6_scope_id
    struct sockaddr_un:
        char sun_path[108]
    struct pollfd:
        int fd
        short events
        short revents
    int sys_poll "poll"(pollfd *fds, unsigned long count, int timeout) nogil
    Py_ssize_t sys_recv "recv"(int fd, void *buffer, size_t size, int flags)
    Py_ssize_t sys_send "send"(int fd, const void *data, size_t size, int flags)
    int accept4(int fd, sockaddr *address, socklen_t *size, int flags)
    const char *inet_ntop(int family, const void *source, char *target, socklen_t size)
    unsigned short ntohs(unsigned short port)
    unsigned int ntohl(unsigned int value)
    size_t UNIX_PATH "offsetof(struct sockaddr_un, sun_path)"
    enum:
        AF_INET
        AF_INET6
        AF_UNIX
        MSG_NOSIGNAL
        POLLIN
        POLLOUT
        SOCK_CLOEXEC
        SOCK_NONBLOCK
        SOCK_STREAM

cdef enum:
    SCRATCH = 65536              # the hub's shared read buffer
    LEAST_IN_PLACE = 4096        # a shorter read is copied from the scratch buffer

cdef object c_socket = socket.socket.__base__
cdef object c_init = c_socket.__init__
cdef object c_close = c_socket.close
cdef object c_shutdown = c_socket.shutdown

cdef type fiber_socket_type = None
cdef Py_ssize_t watch_offset = -1


cdef Watch watch_of(object sock):
    cdef PyObject *found
    if not PyObject_TypeCheck(sock, fiber_socket_type):
        raise TypeError(f"a FiberSocket is needed, not {type(sock).__name__}")
    found = slot(sock, watch_offset)
    if found is NULL:
        raise OSError(codes.EBADF, os.strerror(codes.EBADF))
    return <Watch>found


cdef inline double limit_of(Watch watch):
    return -1.0 if watch.timeout < 0.0 else monotonic() + watch.timeout


cdef int poll_once(Watch watch, short events, double limit) except -1:
    """Wait outside of any fiber, as an ordinary socket does; 0 when `limit` has passed."""
    cdef pollfd waited
    cdef double left
    cdef int found, milliseconds = -1
    while True:
        if limit >= 0.0:
            left = limit - monotonic()
            milliseconds = 0 if left <= 0 else <int>min(left * 1e3 + 1, 86_400_000.0)
        waited.fd = watch.fd
        waited.events = events
        waited.revents = 0
        with nogil:
            found = sys_poll(&waited, 1, milliseconds)
        if found > 0:
            return 1
        if found < 0 and errno != EINTR:
            PyErr_SetFromErrno(OSError)
        PyErr_CheckSignals()
        if limit >= 0.0 and monotonic() >= limit:
            return 0


cdef inline int await_io(Hub hub, Watch watch, bint writing, double limit) except -1:
    """Wait for the descriptor, in whatever way this thread can; raises when `limit` passes.

    Inlined and without an error in sight, for all that stands on a parked fiber's stack is saved.
    """
    if hub is None or watch.timeout == 0.0:
        return await_outside(watch, writing, limit)
    return 0 if hub.await_io(watch, writing, limit) else time_out()


cdef int time_out() except -1:
    raise TimeoutError("timed out")


cdef int await_outside(Watch watch, bint writing, double limit) except -1:
    """There is no fiber that could park, or nothing to wait for."""
    if watch.timeout == 0.0:
        raise BlockingIOError(EAGAIN, os.strerror(EAGAIN))
    if not poll_once(watch, POLLOUT if writing else POLLIN, limit):
        time_out()
    if writing:
        watch.writable = True
    else:
        watch.readable = True
    return 0


cdef int await_readable(Watch watch, double limit) except -1:
    return await_io(running_hub(), watch, False, limit)


cdef inline int check_open(Watch watch) except -1:
    if watch.fd < 0:
        raise OSError(codes.EBADF, os.strerror(codes.EBADF))
    return 0


cdef Py_ssize_t receive_now(Watch watch, void *buffer, size_t size) except -2:
    """Read what is there; -1 when nothing is. Never waits."""
    return try_receive(watch, buffer, size, 0)


cdef Py_ssize_t try_receive(Watch watch, void *buffer, size_t size, int flags) except -2:
    cdef Py_ssize_t count
    check_open(watch)
    while True:
        count = sys_recv(watch.fd, buffer, size, flags)
        if count >= 0:
            if <size_t>count < size and watch.infers and not watch.hung_up and flags == 0:
                # Empty for sure: going to the loop now instead of asking for EAGAIN saves one
                # system call in three, a tenth of the throughput of a small echo.
                watch.readable = False
            return count
        if errno == EAGAIN:
            watch.readable = False
            return -1
        if errno != EINTR:
            PyErr_SetFromErrno(OSError)
        PyErr_CheckSignals()


cdef inline bint worth_trying(Hub hub, Watch watch, int flags):
    """Events keep `readable` true only while a fiber's hub looks after them."""
    return watch.readable or hub is None or watch.timeout == 0.0 or flags != 0


cdef Py_ssize_t receive(Watch watch, void *buffer, size_t size, int flags) except -1:
    """Read into `buffer` as recv(2) would on a blocking socket."""
    cdef Hub hub = running_hub()
    cdef Py_ssize_t count
    cdef double limit = -2.0
    if hub is not None:
        hub.spend()
    while True:
        if worth_trying(hub, watch, flags):
            count = try_receive(watch, buffer, size, flags)
            if count >= 0:
                return count
            watch.readable = False
        if limit == -2.0:
            limit = limit_of(watch)
        await_io(hub, watch, False, limit)
        check_open(watch)


cdef object receive_bytes(Watch watch, Py_ssize_t size, int flags):
    """Read a bytes object. Nothing is allocated for it while it waits."""
    cdef Hub hub = running_hub()
    cdef Py_ssize_t count
    cdef double limit = -2.0
    if size < 0:
        raise ValueError("negative buffersize in recv")
    if hub is not None:
        hub.spend()
    while True:
        if worth_trying(hub, watch, flags):
            if hub is not None and watch.expected < LEAST_IN_PLACE and size <= SCRATCH:
                count = try_receive(watch, hub.scratch, size, flags)
                if count >= 0:
                    watch.expected = count
                    return PyBytes_FromStringAndSize(hub.scratch, count)
            else:
                data = receive_in_place(watch, size, flags)
                if data is not None:
                    return data
            watch.readable = False
        if limit == -2.0:
            limit = limit_of(watch)
        await_io(hub, watch, False, limit)
        check_open(watch)


cdef object receive_in_place(Watch watch, Py_ssize_t size, int flags):
    """Read long data without copying it, or give None when there is none.

    Twice of what the last read brought is asked for: a block of just that size is cheaper to
    get and to shrink than one of all that the caller would take (16 KiB echo: a seventh).
    """
    cdef PyObject *fresh
    cdef Py_ssize_t count = -1
    if watch.expected:
        size = min(size, max(LEAST_IN_PLACE, 2 * watch.expected))
    fresh = new_bytes(NULL, size)
    try:
        count = try_receive(watch, text_of(fresh), size, flags)
    finally:
        if count < 0:
            Py_DECREF(<object>fresh)
    if count < 0:
        return None
    watch.expected = count
    if count < size:
        _PyBytes_Resize(&fresh, count)
    data = <object>fresh
    Py_DECREF(data)
    return data


cdef Py_ssize_t try_transmit(Watch watch, const void *data, size_t size, int flags) except -2:
    cdef Py_ssize_t count
    check_open(watch)
    while True:
        count = sys_send(watch.fd, data, size, flags | MSG_NOSIGNAL)
        if count >= 0:
            if <size_t>count < size and watch.infers:
                watch.writable = False
            return count
        if errno == EAGAIN:
            watch.writable = False
            return -1
        if errno != EINTR:
            PyErr_SetFromErrno(OSError)
        PyErr_CheckSignals()


cdef Py_ssize_t transmit(Watch watch, const void *data, size_t size, int flags,
                         double limit) except -1:
    """Send some of `data`, waiting until there is room for any."""
    cdef Hub hub = running_hub()
    cdef Py_ssize_t count
    while True:
        if watch.writable or hub is None or watch.timeout == 0.0:
            count = try_transmit(watch, data, size, flags)
            if count >= 0:
                return count
        await_io(hub, watch, True, limit)
        check_open(watch)


cdef int settle_first(Watch watch) except -1:
    """What a stream of this socket holds back goes before what is sent past it."""
    cdef Corked corked = watch.corked
    corked.settle()
    return 0


cdef int transmit_all(Watch watch, const char *data, size_t size, int flags) except -1:
    """Send all of `data`; the socket's time limit counts for the whole."""
    cdef Hub hub = running_hub()
    cdef size_t done = 0
    cdef Py_ssize_t count
    cdef double limit = -2.0
    if watch.corked is not None:
        settle_first(watch)
    if hub is not None:
        hub.spend()
    while True:
        if watch.writable or hub is None or watch.timeout == 0.0:
            count = try_transmit(watch, data + done, size - done, flags)
            if count >= 0:
                done += count
                if done >= size:
                    return 0
                continue
        if limit == -2.0:
            limit = limit_of(watch)
        await_io(hub, watch, True, limit)
        check_open(watch)


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
    PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
    try:
        if nbytes == 0:
            nbytes = view.len
        elif view.len < nbytes:
            raise ValueError("buffer too small for requested bytes")
        return receive(watch, view.buf, nbytes, flags)
    finally:
        PyBuffer_Release(&view)


def send(self, data, int flags=0):
    """Send some of `data`; the number of bytes."""
    cdef Watch watch = watch_of(self)
    cdef Hub hub = running_hub()
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if watch.corked is not None:
            settle_first(watch)
        if hub is not None:
            hub.spend()
        return transmit(watch, view.buf, view.len, flags, limit_of(watch))
    finally:
        PyBuffer_Release(&view)


def sendall(self, data, int flags=0):
    """Send all of `data`."""
    cdef Watch watch = watch_of(self)
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        transmit_all(watch, <const char *>view.buf, view.len, flags)
    finally:
        PyBuffer_Release(&view)


def wait(self, bint writing, limit):
    """Wait until the descriptor may be ready, until the moment `limit` (None: for ever)."""
    cdef Watch watch = watch_of(self)
    check_open(watch)
    if writing:
        watch.writable = False
    else:
        watch.readable = False
    await_io(running_hub(), watch, writing, -1.0 if limit is None else limit)
    check_open(watch)


def settle(self):
    """Send what a stream of this socket holds back."""
    cdef Watch watch = watch_of(self)
    if watch.corked is not None:
        settle_first(watch)


def close_socket(self):
    """Close the socket, or let its last file do so. One call instead of four in Python."""
    self._closed = True
    if self._io_refs > 0:
        return
    if type(self) is fiber_socket_type:
        watch_of(self).release()
        c_close(self)
    else:
        self._real_close()


def shutdown(self, how):
    """Shut down one direction or both, after what a stream holds back has left."""
    cdef Watch watch = watch_of(self)
    if watch.corked is not None:
        settle_first(watch)
    c_shutdown(self, how)


# --- making them --------------------------------------------------------------------------------


def new_watch(int fd, int family, int kind):
    """The state of one descriptor. Only with TCP does a short read mean that nothing is left."""
    return Watch(fd, (family == AF_INET or family == AF_INET6) and kind & 0xf == SOCK_STREAM)


def get_timeout(self):
    cdef Watch watch = watch_of(self)
    return None if watch.timeout < 0 else watch.timeout


def set_timeout(self, timeout):
    watch_of(self).timeout = -1.0 if timeout is None else <double>timeout


def release(self):
    """The descriptor closes or leaves: whoever waits for it is woken."""
    watch_of(self).release()


def mark_duplicated(self):
    watch_of(self).duplicated = True


def accept_many(int fd, int limit=100, cls=None):
    """Accept at most `limit` waiting connections: a list of (socket, address); may be empty.

    Raises what accept(2) says when that comes first, and keeps it for the next call otherwise.
    """
    cdef sockaddr_storage storage
    cdef socklen_t size
    cdef int accepted
    cdef list found = []
    if cls is None:
        cls = fiber_socket_type
    while len(found) < limit:
        size = sizeof(sockaddr_storage)
        accepted = accept4(fd, <sockaddr *>&storage, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if accepted < 0:
            if errno == EINTR:
                PyErr_CheckSignals()
                continue
            if errno != EAGAIN and not found:
                PyErr_SetFromErrno(OSError)
            break
        found.append(accepted_socket(cls, accepted, <sockaddr *>&storage, size))
    return found


cdef object accepted_socket(cls, int fd, sockaddr *address, socklen_t size):
    cdef int family = address.sa_family
    try:
        if cls is fiber_socket_type:
            sock = adopt(cls, fd, family, SOCK_STREAM, 0)
        else:
            sock = cls._adopt(fd, family, SOCK_STREAM, 0)
    except BaseException:
        close(fd)
        raise
    return sock, address_of(sock, address, size)


cdef object address_of(sock, sockaddr *address, socklen_t size):
    """The peer as `socket.accept` would tell it."""
    cdef char text[64]
    cdef sockaddr_in *four
    cdef sockaddr_in6 *six
    if address.sa_family == AF_INET:
        four = <sockaddr_in *>address
        inet_ntop(AF_INET, &four.sin_addr, text, sizeof(text))
        return (<bytes>text).decode("ascii"), ntohs(four.sin_port)
    if address.sa_family == AF_INET6:
        six = <sockaddr_in6 *>address
        inet_ntop(AF_INET6, &six.sin6_addr, text, sizeof(text))
        return ((<bytes>text).decode("ascii"), ntohs(six.sin6_port),
                ntohl(six.sin6_flowinfo), six.sin6_scope_id)
    if address.sa_family == AF_UNIX and size <= UNIX_PATH:
        return ""
    try:
        return sock.getpeername()
    except OSError:
        return ""


def adopt(cls, int fd, int family, int kind, int proto):
    """Make a socket of `cls` own `fd`, which is non-blocking already."""
    sock = c_socket.__new__(cls)
    c_init(sock, family, kind | SOCK_NONBLOCK, proto, fd)
    sock._io_refs = 0
    sock._closed = False
    sock._watch = new_watch(fd, family, kind)
    return sock


class FiberSocket(reference.FiberSocket):
    """A real `socket.socket` whose waits park the fiber: the compiled engine's."""

    __slots__ = ()

    recv = recv
    recv_into = recv_into
    send = send
    sendall = sendall
    close = close_socket
    shutdown = shutdown
    _wait = wait
    _settle = settle
    _release = release
    _set_timeout = set_timeout
    _mark_duplicated = mark_duplicated
    _new_watch = staticmethod(new_watch)
    _adopt = classmethod(adopt)
    gettimeout = get_timeout
    timeout = property(get_timeout)


fiber_socket_type = FiberSocket
watch_offset = slot_offset(reference.FiberSocket.__dict__["_watch"])
