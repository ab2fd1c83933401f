# cython: binding=False
# (plain method descriptors: the interpreter calls them without a detour)
"""The compiled writer: the writing half of a stream, with its buffer in C.

It stands between a socket and the `wfile` of a handler; `writer.py` is its reference.
"""
import io
import threading

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_RawRealloc
from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memcpy
from everserve.fibers._fiber cimport Fiber
from everserve.fibers._loop cimport monotonic
from everserve.fibers._scheduler cimport Scheduler, running_hub
from everserve.fibers._transfer cimport poll_once, raise_errno, transmit_all
from everserve.streams._half cimport (
    BLOCK, BY_DESCRIPTOR, BY_FIBER, BY_METHODS, HIGH_WATER, Half, give_back, has_block, take_block,
)

from everserve.errors import FiberTimeout

cdef extern from *:
    """
    #include <poll.h>
    #include <sys/socket.h>
    """
    Py_ssize_t sys_send "send"(int fd, const void *data, size_t size, int flags) nogil
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
        POLLOUT


cdef class Writer(Half):
    """The writing half: the binary file that `wfile` is.

    Without a buffer each write is a `sendall`. With one, up to `size` bytes are buffered; a writer
    that coalesces also sends them when the fiber waits for anything, or the thread for a read. Where
    each write is a message of its own (SOCK_SEQPACKET), none are sent together.
    """

    def __init__(self, sock, Py_ssize_t size=0, bint coalesce=False):
        self.is_unbuffered = size <= 0
        self.coalesces = coalesce and (self.watch is None or self.watch.is_stream)
        self.size = HIGH_WATER if self.coalesces and size <= 0 else max(0, size)

    def __dealloc__(self):
        if self.buffer is not NULL:
            give_back(self.buffer, self.capacity)

    def __del__(self):
        if self.sock is not None and not self.shut:  # else the constructor has failed: call nothing
            self.send_unclosed()
            self.release()

    @property
    def mode(self):
        return "wb"

    @property
    def buffered(self):
        """How many bytes are buffered."""
        return self.length

    def readable(self):
        self.check_open()
        return False

    def writable(self):
        self.check_open()
        return True

    def write(self, data):
        """Write all of `data`, now or together with what follows; return how many bytes."""
        cdef Py_buffer view
        cdef Py_ssize_t size
        if PyBytes_CheckExact(data):
            size = PyBytes_GET_SIZE(data)
            if (0 < size <= min(self.capacity, self.size) - self.length and self.length
                    and not self.shut and (self.holder is not None or self.kind != BY_FIBER)):
                memcpy(self.buffer + self.length, PyBytes_AS_STRING(data), size)
                self.length += size
                return size
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.add(data, <const char *>view.buf, view.len)
            return view.len
        finally:
            PyBuffer_Release(&view)

    def writelines(self, lines):
        """Write each of `lines`."""
        self.check_open()
        for line in lines:
            self.write(line)

    def flush(self):
        """Send what is buffered; raises its error, or that of an earlier send."""
        self.check_open()
        if self.length or self.sending:
            self.flush_buffer()
        self.raise_error()

    def close(self):
        """Flush, then stop writing. Closes the socket as `Reader.close` does."""
        if self.shut:
            return
        try:
            self.flush()
        finally:
            self.release()

    # --- inside --------------------------------------------------------------------------------

    cdef int raise_error(self) except -1:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return 0

    cdef int add(self, data, const char *bytes_, Py_ssize_t size) except -1:
        if self.shut:
            self.write_late(data)
            return 0
        self.raise_error()
        if size == 0:
            return 0
        if self.length and self.length + size > self.size:
            self.flush()
        if size >= self.size:
            return self.send_straight(data, bytes_, size)
        self.flush_when_waiting()
        self.make_room(size)
        memcpy(self.buffer + self.length, bytes_, size)
        self.length += size
        if self.coalesces and self.kind == BY_FIBER and running_hub() is None:
            self.flush_buffer()      # written by a thread beside the fibers: none of them would send it
        return 0

    cdef int write_late(self, data) except -1:
        """After the close. The unbuffered file of `socketserver` leaves that to the socket: an OSError
        once that is closed too.
        """
        if not self.is_unbuffered:
            self.check_open()
        self.sock.sendall(data)
        return 0

    cdef int flush_when_waiting(self) except -1:
        """Have the bytes sent when the fiber waits, and before any that are sent past this stream."""
        cdef Scheduler hub
        if not self.coalesces:
            return 0
        if self.watch is not None:
            self.watch.buffered = self
        hub = running_hub()
        if hub is not None and self.holder is not hub.current:
            self.holder = hub.current
            self.holder.add_buffered(self)
        return 0

    cdef int make_room(self, Py_ssize_t size) except -1:
        cdef Py_ssize_t wanted = self.length + size
        cdef char *larger
        if wanted <= self.capacity:
            return 0
        if self.capacity == 0 and has_block() and self.size <= BLOCK:
            self.buffer = take_block()
            self.capacity = BLOCK
            return 0
        wanted = max(512, 2 * wanted)
        larger = <char *>PyMem_RawRealloc(self.buffer, wanted)
        if larger is NULL:
            raise MemoryError
        self.buffer = larger
        self.capacity = wanted
        return 0

    cdef int flush_quietly(self) except -1:
        """Flush as `flush_buffer` does; 1 when that had to wait."""
        cdef Scheduler hub = running_hub()
        cdef unsigned long long before = 0
        self.holder = None
        if self.length == 0 or self.shut:
            return 0
        if hub is not None:
            before = hub.switches
        self.flush_buffer()
        return hub is not None and hub.switches != before

    cdef int flush_buffer(self) except -1:
        """Send all that is buffered; an error of the peer is kept for the next call."""
        if self.length == 0 and not self.sending:
            return 0
        if running_hub() is None:
            return self.flush_by_thread()
        while self.sending:
            self.wait_for_sender()
        return self.send_alone()

    cdef int flush_by_thread(self) except -1:
        """As `flush_buffer`, where threads take turns by a lock, which no fiber waits for."""
        if self.lock is None:
            self.lock = threading.Lock()
        with self.lock:
            # A fiber that is sending does so until nothing is left.
            return 0 if self.sending else self.send_alone()

    cdef int send_alone(self) except -1:
        """Send what is buffered while every other fiber that would waits."""
        cdef Fiber me
        self.sending = True
        try:
            self.send_buffered()
        finally:
            self.sending = False
            if self.waiting is not None:
                waiting, self.waiting = self.waiting, None
                for me in waiting:
                    me.wake()
        return 0

    cdef int wait_for_sender(self) except -1:
        cdef Scheduler hub = running_hub()
        if self.waiting is None:
            self.waiting = []
        self.waiting.append(hub.current)
        hub.park_raw(-1.0)
        return 0

    cdef int send_buffered(self) except -1:
        cdef char *sent
        cdef Py_ssize_t length, capacity
        while self.length:
            sent, length, capacity = self.buffer, self.length, self.capacity
            self.buffer = NULL
            self.length = self.capacity = 0
            if self.watch is not None:
                self.watch.buffered = None
            try:
                self.send_all(sent, length)
            except FiberTimeout as error:
                self.error = error        # a part may have been sent: nothing may follow
                raise                     # ends the wait of the fiber
            except OSError as error:
                self.error = error
            finally:
                if self.buffer is NULL and not self.coalesces:
                    self.buffer, self.capacity = sent, capacity
                else:
                    give_back(sent, capacity)
        return 0

    cdef int send_all(self, const char *data, Py_ssize_t size) except -1:
        if self.kind == BY_FIBER:
            transmit_all(self.watch, data, size, 0)
        elif self.kind == BY_DESCRIPTOR:
            self.send_descriptor(data, size)
        else:
            self.sock.sendall(PyBytes_FromStringAndSize(data, size))
        return 0

    cdef int send_straight(self, data, const char *bytes_, Py_ssize_t size) except -1:
        """Nothing is buffered: send from the memory of the caller."""
        if self.kind == BY_METHODS:
            self.sock.sendall(data)
        else:
            self.send_all(bytes_, size)
        return 0

    cdef int send_descriptor(self, const char *data, Py_ssize_t size) except -1:
        """sendall of a plain socket: its timeout is for the whole."""
        cdef int fd = self.sock.fileno()
        cdef Py_ssize_t count, done = 0
        cdef double limit
        cdef int flags
        timeout = self.sock.gettimeout()
        limit = -1.0 if timeout is None else monotonic() + <double>timeout
        # In a `Timeout` block a limit is set, and the descriptor blocks all the same.
        flags = MSG_NOSIGNAL if limit < 0.0 else MSG_NOSIGNAL | MSG_DONTWAIT
        while done < size:
            if limit >= 0.0 and timeout and not poll_once(fd, POLLOUT, limit):
                raise TimeoutError("timed out")
            with nogil:
                count = sys_send(fd, data + done, size - done, flags)
            if count >= 0:
                done += count
                continue
            if errno != EINTR and not (errno == EAGAIN and timeout):
                raise_errno()
            PyErr_CheckSignals()
        return 0

    cdef int send_unclosed(self) except -1:
        """Without `close()`: send what the kernel takes at once, because a destructor must not wait.

        That is nothing where only the methods of the socket may send.
        """
        if self.length and self.kind != BY_METHODS and self.error is None:
            sys_send(self.sock.fileno(), self.buffer, self.length, MSG_DONTWAIT | MSG_NOSIGNAL)
        return 0


io.BufferedIOBase.register(Writer)
