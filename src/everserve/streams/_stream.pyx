# cython: binding=False
# (plain method descriptors: the interpreter calls them without a detour)
"""The compiled stream: a `Reader` and a `Writer` over one socket, with their buffers in C.

It stands between a socket and the `rfile` and `wfile` of a handler; `stream.py` is its reference.
"""
import io
import socket

from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.object cimport PyObject
from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memchr, memcpy, memmove
from everserve.fibers._hub cimport Corked, Fiber, Hub, running_hub
from everserve.fibers._loop cimport Watch, monotonic
from everserve.fibers._sockets cimport (
    await_readable, limit_of, receive, receive_now, transmit_all, watch_of,
)

from everserve.fibers._sockets import FiberSocket
from everserve.errors import LineTooLong

cdef extern from *:
    """
    #include <poll.h>
    #include <sys/socket.h>
    """
    struct pollfd:
        int fd
        short events
        short revents
    int sys_poll "poll"(pollfd *fds, unsigned long count, int timeout) nogil
    Py_ssize_t sys_recv "recv"(int fd, void *buffer, size_t size, int flags) nogil
    Py_ssize_t sys_send "send"(int fd, const void *data, size_t size, int flags) nogil
    enum:
        MSG_NOSIGNAL
        POLLIN
        POLLOUT

cdef enum:
    BY_FIBER                     # a FiberSocket of the compiled engine: its waits park
    BY_DESCRIPTOR                # exactly socket.socket: its system calls, without the GIL
    BY_METHODS                   # any other: what its own recv_into and sendall do

cdef enum:
    BLOCK = 65536                # bytes a fiber's read may find; shared, as nobody keeps one waiting
    SHARED_BLOCKS = 32
    OWN_BLOCK = 16384            # bytes of a thread's buffer, which waits in the kernel with it
    LEAST_ROOM = 4096
    HIGH_WATER = 65536           # bytes a coalescing writer gathers
    LINES_A_GLANCE = 32          # lines between two looks at the fiber's quantum

cdef enum:
    WOULD_BLOCK = -2

cdef char *shared[SHARED_BLOCKS]
cdef int shared_count = 0


cdef char *take_block() except NULL:
    global shared_count
    cdef char *block
    if shared_count:
        shared_count -= 1
        return shared[shared_count]
    block = <char *>PyMem_RawMalloc(BLOCK)
    if block is NULL:
        raise MemoryError
    return block


cdef void give_back(char *block, Py_ssize_t capacity) noexcept:
    global shared_count
    if capacity == BLOCK and shared_count < SHARED_BLOCKS:
        shared[shared_count] = block
        shared_count += 1
    else:
        PyMem_RawFree(block)


cdef int kind_of(sock) except -1:
    if type(sock) is FiberSocket:
        return BY_FIBER
    if type(sock) is socket.socket:
        return BY_DESCRIPTOR
    return BY_METHODS


cdef int poll_for(int fd, short events, double limit) except -1:
    """Wait without the GIL; 0 when the moment `limit` has passed."""
    cdef pollfd waited
    cdef double left
    cdef int found
    while True:
        left = limit - monotonic()
        waited.fd = fd
        waited.events = events
        waited.revents = 0
        with nogil:
            found = sys_poll(&waited, 1, 0 if left <= 0 else <int>min(left * 1e3 + 1, 86_400_000.0))
        if found > 0:
            return 1
        if found < 0 and errno != EINTR:
            PyErr_SetFromErrno(OSError)
        PyErr_CheckSignals()
        if monotonic() >= limit:
            return 0


cdef class Half(Corked):
    """What both directions share: the socket, being closed, the formalities of a file."""

    cdef readonly object sock
    cdef Watch watch
    cdef int kind
    cdef bint shut

    def __cinit__(self, sock, *_arguments, **_options):
        self.shut = True
        self.sock = sock
        self.kind = kind_of(sock)
        if self.kind == BY_FIBER:
            self.watch = watch_of(sock)
        if isinstance(sock, socket.socket):
            sock._io_refs += 1   # as with makefile(): the descriptor lives until its files close
        self.shut = False

    cdef int let_go(self) except -1:
        """Be closed; the socket closes too if somebody has closed it and this was its last file."""
        if not self.shut:
            self.shut = True
            if isinstance(self.sock, socket.socket):
                self.sock._decref_socketios()
        return 0

    cdef int check_open(self) except -1:
        if self.shut:
            raise ValueError("I/O operation on closed file.")
        return 0

    @property
    def closed(self):
        return self.shut

    @property
    def name(self):
        return -1 if self.shut else self.sock.fileno()

    def fileno(self):
        self.check_open()
        return self.sock.fileno()

    def isatty(self):
        self.check_open()
        return False

    def seekable(self):
        self.check_open()
        return False

    def seek(self, offset, whence=0):
        raise io.UnsupportedOperation("seek")

    def tell(self):
        raise io.UnsupportedOperation("tell")

    def truncate(self, size=None):
        raise io.UnsupportedOperation("truncate")

    def detach(self):
        raise io.UnsupportedOperation("detach")

    def __enter__(self):
        self.check_open()
        return self

    def __exit__(self, *_error):
        self.close()

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")


cdef class Reader(Half):
    """The reading half: the buffered binary file that `rfile` is.

    `max_line` bounds what an unlimited `readline` or iteration gathers, newline included; None
    leaves it to memory, as the standard library does.
    """

    cdef char *buffer
    cdef Py_ssize_t start        # of what has not been read
    cdef Py_ssize_t end
    cdef Py_ssize_t capacity
    cdef Py_ssize_t longest      # max_line; negative: any
    cdef int lines
    cdef bint timed_out
    cdef bint busy               # a thread waits in the kernel with the buffer
    cdef Writer writer           # whose bytes leave before this half waits

    def __init__(self, sock, max_line=None):
        self.max_line = max_line

    def __dealloc__(self):
        if self.buffer is not NULL:
            give_back(self.buffer, self.capacity)

    def __del__(self):
        self.let_go()

    @property
    def max_line(self):
        return None if self.longest < 0 else self.longest

    @max_line.setter
    def max_line(self, value):
        self.longest = -1 if value is None else value

    @property
    def mode(self):
        return "rb"

    def readable(self):
        self.check_open()
        return True

    def writable(self):
        self.check_open()
        return False

    def write(self, data):
        raise io.UnsupportedOperation("write")

    def flush(self):
        self.check_open()

    def close(self):
        """Stop reading. The socket stays, unless it was closed and this was its last file."""
        self.drop_buffer()
        self.let_go()

    # --- the buffer --------------------------------------------------------------------------

    cdef void drop_buffer(self) noexcept:
        if self.buffer is not NULL and not self.busy:
            give_back(self.buffer, self.capacity)
            self.buffer = NULL
            self.start = self.end = self.capacity = 0

    cdef int make_room(self) except -1:
        """Have a buffer with room at its end for a read that is worth the call."""
        cdef Py_ssize_t used = self.end - self.start
        cdef char *larger
        cdef Py_ssize_t size
        if self.buffer is NULL:
            self.take_buffer()
            return 0
        if used == 0:
            self.start = self.end = 0
        if self.capacity - self.end >= LEAST_ROOM:
            return 0
        if self.capacity - used >= max(LEAST_ROOM, self.capacity >> 1):
            memmove(self.buffer, self.buffer + self.start, used)
        else:
            size = BLOCK if used <= BLOCK >> 1 else 2 * used
            larger = take_block() if size == BLOCK else <char *>PyMem_RawMalloc(size)
            if larger is NULL:
                raise MemoryError
            memcpy(larger, self.buffer + self.start, used)
            give_back(self.buffer, self.capacity)
            self.buffer = larger
            self.capacity = size
        self.start = 0
        self.end = used
        return 0

    cdef int take_buffer(self) except -1:
        if self.kind == BY_DESCRIPTOR:
            self.buffer = <char *>PyMem_RawMalloc(OWN_BLOCK)
            if self.buffer is NULL:
                raise MemoryError
            self.capacity = OWN_BLOCK
        else:
            self.buffer = take_block()
            self.capacity = BLOCK
        self.start = self.end = 0
        return 0

    cdef int rest(self) except -1:
        """Before waiting, keep of the buffer no more than the bytes that are in it."""
        cdef Py_ssize_t used = self.end - self.start
        cdef char *smaller
        if used == 0:
            self.drop_buffer()
        elif self.capacity > 2 * used + 256:
            smaller = <char *>PyMem_RawMalloc(used)
            if smaller is NULL:
                raise MemoryError
            memcpy(smaller, self.buffer + self.start, used)
            give_back(self.buffer, self.capacity)
            self.buffer = smaller
            self.capacity = self.end = used
            self.start = 0
        return 0

    cdef Py_ssize_t fill(self) except -3:
        """Read once more into the buffer: how many bytes, 0 at the end, or WOULD_BLOCK."""
        cdef Py_ssize_t count
        self.check_readable()
        if self.kind == BY_FIBER:
            count = self.fill_by_fiber()
        elif self.kind == BY_DESCRIPTOR:
            self.make_room()
            count = self.read_descriptor(self.buffer + self.end, self.capacity - self.end)
        else:
            count = self.fill_by_methods()
        if count > 0:
            self.end += count
        return count

    cdef int check_readable(self) except -1:
        if self.shut:
            raise ValueError("I/O operation on closed file.")
        if self.timed_out:
            raise OSError("cannot read from timed out object")
        if self.busy:
            raise RuntimeError("another thread is reading from this stream")
        return 0

    cdef Py_ssize_t fill_by_fiber(self) except -3:
        cdef Hub hub = running_hub()
        cdef Watch watch = self.watch
        cdef Py_ssize_t count
        cdef double limit = -2.0
        if hub is not None:
            hub.spend()
        elif self.writer is not None:
            self.writer.push_out()
        while True:
            if watch.readable or hub is None or watch.timeout == 0.0:
                self.make_room()
                count = receive_now(watch, self.buffer + self.end, self.capacity - self.end)
                if count >= 0:
                    return count
            self.rest()
            if watch.timeout == 0.0:
                return WOULD_BLOCK
            if limit == -2.0:
                limit = limit_of(watch)
            if hub is None:
                self.wait_outside(limit)
            elif not hub.await_io(watch, False, limit):
                self.timed_out = True
                raise TimeoutError("timed out")
            self.check_readable()

    cdef int wait_outside(self, double limit) except -1:
        try:
            await_readable(self.watch, limit)
        except TimeoutError:
            self.timed_out = True
            raise
        return 0

    cdef Py_ssize_t read_descriptor(self, char *target, Py_ssize_t size) except -3:
        """recv(2) as a plain socket does it: its time limit holds, the GIL goes while it waits."""
        cdef int fd
        cdef Py_ssize_t count
        cdef double limit
        if self.writer is not None:
            self.writer.push_out()
        fd = self.sock.fileno()
        timeout = self.sock.gettimeout()
        limit = -1.0 if timeout is None else monotonic() + <double>timeout
        while True:
            if limit >= 0.0 and timeout and not poll_for(fd, POLLIN, limit):
                self.timed_out = True
                raise TimeoutError("timed out")
            self.busy = True
            with nogil:
                count = sys_recv(fd, target, size, 0)
            self.busy = False
            if count >= 0:
                return count
            if errno == EAGAIN:
                if limit < 0.0 or not timeout:
                    return WOULD_BLOCK
            elif errno != EINTR:
                PyErr_SetFromErrno(OSError)
            PyErr_CheckSignals()

    cdef Py_ssize_t fill_by_methods(self) except -3:
        """One `recv_into` of the socket's own, into memory that nobody else has."""
        if self.writer is not None:
            self.writer.push_out()
        self.rest()
        room = bytearray(OWN_BLOCK)
        try:
            count = self.sock.recv_into(room)
        except TimeoutError:
            self.timed_out = True
            raise
        except BlockingIOError:
            return WOULD_BLOCK
        self.take_in(room, count)
        return count

    cdef int take_in(self, bytearray found, Py_ssize_t count) except -1:
        cdef Py_ssize_t done = 0, part
        cdef char *data = found
        self.check_readable()
        while done < count:
            self.make_room()
            part = min(count - done, self.capacity - self.end)
            memcpy(self.buffer + self.end, data + done, part)
            self.end += part
            done += part
        self.end -= count            # fill() counts them
        return 0

    # --- lines ---------------------------------------------------------------------------------

    def __iter__(self):
        self.check_open()
        return self

    def __next__(self):
        cdef char *begin = self.buffer + self.start
        cdef char *newline
        cdef Py_ssize_t size
        if self.start < self.end:
            newline = <char *>memchr(begin, c"\n", self.end - self.start)
            if newline is not NULL:
                self.lines += 1
                if self.lines >= LINES_A_GLANCE:
                    return self.line_after_glance()
                size = newline - begin + 1
                if self.longest < 0 or size <= self.longest:
                    self.start += size
                    return PyBytes_FromStringAndSize(begin, size)
        line = self.read_line(-1)
        if PyBytes_GET_SIZE(line) == 0:
            raise StopIteration
        return line

    cdef object line_after_glance(self):
        """Every so many lines: whether the fiber has held the loop for long enough."""
        cdef Hub hub = running_hub()
        self.lines = 0
        if hub is not None:
            hub.spend()
        return self.read_line(-1)

    def readline(self, size=-1):
        """Read up to and with a newline, at most `size` bytes (negative or None: any number)."""
        self.check_open()
        return self.read_line(-1 if size is None else size)

    cdef bytes read_line(self, Py_ssize_t size):
        cdef Py_ssize_t seen = 0, count, most
        cdef char *newline
        cdef bint bounded = size < 0 and self.longest >= 0
        most = self.longest if bounded else size
        while True:
            count = self.end - self.start
            if most >= 0 and count > most:
                count = most
            if count > seen:
                newline = <char *>memchr(self.buffer + self.start + seen, c"\n", count - seen)
                if newline is not NULL:
                    return self.cut(newline - (self.buffer + self.start) + 1)
                seen = count
            if most >= 0 and count >= most:
                if bounded:
                    self.refuse_line()
                return self.cut(count)
            if self.fill() <= 0:
                return self.cut(self.end - self.start)

    cdef int refuse_line(self) except -1:
        raise LineTooLong(f"a line of more than {self.longest} bytes came: raise max_line "
                          "if such lines are meant, or end the connection")

    cdef bytes cut(self, Py_ssize_t size):
        cdef Py_ssize_t start = self.start
        if size == 0:
            return b""
        self.start += size
        return PyBytes_FromStringAndSize(self.buffer + start, size)

    def readlines(self, hint=None):
        """Read lines until the end, or until they have more than `hint` bytes together."""
        cdef Py_ssize_t left = 0 if hint is None else hint
        cdef bint bounded = left > 0
        cdef list found = []
        self.check_open()
        for line in self:
            found.append(line)
            if bounded:
                if len(line) > left:
                    break
                left -= len(line)
        return found

    # --- bytes ---------------------------------------------------------------------------------

    def read(self, size=-1):
        """Read exactly `size` bytes, fewer only at the end; all until the end without a size."""
        cdef Py_ssize_t wanted = -1 if size is None else size
        self.check_open()
        if wanted < -1:
            raise ValueError("read length must be non-negative or -1")
        if wanted < 0:
            return self.read_all()
        if wanted <= self.end - self.start:
            return self.cut(wanted)
        return self.read_exactly(wanted)

    cdef object read_all(self):
        cdef list parts = []
        cdef Py_ssize_t count
        while True:
            if self.end > self.start:
                parts.append(self.cut(self.end - self.start))
            count = self.fill()
            if count == 0:
                return b"".join(parts)
            if count == WOULD_BLOCK:
                return b"".join(parts) if parts else None

    cdef object read_exactly(self, Py_ssize_t size):
        """Small reads go through the buffer; what is longer than that is read in place."""
        cdef Py_ssize_t done = self.end - self.start, count
        cdef bytes found
        cdef char *target
        if size < HIGH_WATER or self.kind == BY_METHODS:
            return self.gather(size)
        found = PyBytes_FromStringAndSize(NULL, size)
        target = PyBytes_AS_STRING(found)
        if done:
            memcpy(target, self.buffer + self.start, done)
        self.start = self.end
        while done < size:
            count = self.read_straight(target + done, size - done)
            if count <= 0:
                break
            done += count
        if done == size:
            return found
        return None if done == 0 and count == WOULD_BLOCK else found[:done]

    cdef object gather(self, Py_ssize_t size):
        cdef list parts = []
        cdef Py_ssize_t left = size, part, count = 0
        while True:
            part = min(left, self.end - self.start)
            if part:
                parts.append(self.cut(part))
                left -= part
            if left == 0:
                break
            count = self.fill()
            if count <= 0:
                break
        if len(parts) == 1:
            return parts[0]
        return None if not parts and count == WOULD_BLOCK else b"".join(parts)

    cdef Py_ssize_t read_straight(self, char *target, Py_ssize_t size) except -3:
        """One read past the buffer, which is empty, into the caller's memory."""
        self.check_readable()
        if self.kind == BY_DESCRIPTOR:
            return self.read_descriptor(target, size)
        self.rest()
        if self.writer is not None:
            self.writer.push_out()
        try:
            return receive(self.watch, target, size, 0)
        except BlockingIOError:
            return WOULD_BLOCK
        except TimeoutError as error:
            self.timed_out = type(error) is TimeoutError
            raise

    def read1(self, size=-1):
        """Read what is there, at most `size` bytes, waiting only when nothing is."""
        cdef Py_ssize_t wanted = -1 if size is None else size
        self.check_open()
        if wanted == 0:
            return b""
        if self.start == self.end and self.fill() <= 0:
            return b""
        if wanted < 0 or wanted > self.end - self.start:
            wanted = self.end - self.start
        return self.cut(wanted)

    def peek(self, size=0):
        """What is there, without taking it; waits only when nothing is."""
        self.check_open()
        if self.start == self.end:
            self.fill()
        return b"" if self.buffer is NULL else PyBytes_FromStringAndSize(
            self.buffer + self.start, self.end - self.start)

    def readinto(self, target):
        """Fill `target`, less only at the end; how many bytes."""
        return self.read_view(target, True)

    def readinto1(self, target):
        """Put what is there into `target`, waiting only when nothing is; how many bytes."""
        return self.read_view(target, False)

    cdef object read_view(self, target, bint wholly):
        cdef Py_buffer view
        cdef Py_ssize_t done = 0, part, count = 0
        self.check_open()
        PyObject_GetBuffer(target, &view, PyBUF_WRITABLE)
        try:
            while done < view.len:
                part = min(view.len - done, self.end - self.start)
                if part:
                    memcpy(<char *>view.buf + done, self.buffer + self.start, part)
                    self.start += part
                    done += part
                    if not wholly:
                        break
                    continue
                count = self.fill()
                if count <= 0:
                    break
        finally:
            PyBuffer_Release(&view)
        return None if done == 0 and count == WOULD_BLOCK else done


cdef class Writer(Half):
    """The writing half: the binary file that `wfile` is.

    Without a buffer each write is a `sendall`. With one, bytes gather until `size` have; when it
    coalesces, they also leave as soon as the fiber waits for anything, or the thread for a read.
    """

    cdef char *buffer
    cdef Py_ssize_t length
    cdef Py_ssize_t capacity
    cdef Py_ssize_t size         # high water mark; 0: unbuffered
    cdef bint coalesces
    cdef bint sending
    cdef Fiber holder            # in whose pending list this writer stands
    cdef object error            # what sending met, for the next call to raise
    cdef object lock             # two threads shall not send pieces of one buffer
    cdef list queue              # fibers that wait until another has sent

    def __init__(self, sock, Py_ssize_t size=0, bint coalesce=False):
        self.size = HIGH_WATER if coalesce and size <= 0 else max(0, size)
        self.coalesces = coalesce

    def __dealloc__(self):
        if self.buffer is not NULL:
            give_back(self.buffer, self.capacity)

    def __del__(self):
        if not self.shut:
            self.try_last()
            self.let_go()

    @property
    def mode(self):
        return "wb"

    @property
    def pending(self):
        """How many bytes are held back."""
        return self.length

    def readable(self):
        self.check_open()
        return False

    def writable(self):
        self.check_open()
        return True

    def read(self, size=-1):
        raise io.UnsupportedOperation("read")

    def readline(self, size=-1):
        raise io.UnsupportedOperation("readline")

    def write(self, data):
        """Write all of `data`, now or with what follows; how many bytes."""
        cdef Py_buffer view
        cdef Py_ssize_t size
        if PyBytes_CheckExact(data):
            size = PyBytes_GET_SIZE(data)
            if 0 < size <= self.capacity - self.length and self.length and not self.shut:
                memcpy(self.buffer + self.length, PyBytes_AS_STRING(data), size)
                self.length += size
                if self.length >= self.size:
                    self.flush()
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
        """Send what is held back; raises what sending it, or what was held before, has met."""
        self.check_open()
        if self.length or self.sending:
            self.push_out()
        self.raise_error()

    def close(self):
        """Flush, then stop writing. The socket stays, as with `Reader.close`."""
        if self.shut:
            return
        try:
            self.flush()
        finally:
            self.let_go()

    # --- inside --------------------------------------------------------------------------------

    cdef int raise_error(self) except -1:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return 0

    cdef int add(self, data, const char *bytes_, Py_ssize_t size) except -1:
        self.check_open()
        self.raise_error()
        if size == 0:
            return 0
        if self.length and self.length + size > self.size:
            self.flush()
        if size >= self.size:
            return self.send_straight(data, bytes_, size)
        self.hold_back()
        self.make_room(size)
        memcpy(self.buffer + self.length, bytes_, size)
        self.length += size
        return 0

    cdef int hold_back(self) except -1:
        """See to it that the bytes leave when the fiber waits, and before any sent past them."""
        cdef Hub hub
        if not self.coalesces:
            return 0
        if self.watch is not None:
            self.watch.corked = self
        hub = running_hub()
        if hub is not None and self.holder is not hub.current:
            self.holder = hub.current
            self.holder.hold(self)
        return 0

    cdef int make_room(self, Py_ssize_t size) except -1:
        cdef Py_ssize_t wanted = self.length + size
        cdef char *larger
        if wanted <= self.capacity:
            return 0
        if self.capacity == 0 and shared_count and self.size <= BLOCK:
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

    cdef int settle(self) except -1:
        """The fiber waits: send. 1 when that had to wait itself."""
        cdef Hub hub = running_hub()
        cdef unsigned long long before = 0
        self.holder = None
        if self.length == 0 or (self.shut and not self.sending):
            return 0
        if hub is not None:
            before = hub.switches
        self.push_out()
        return hub is not None and hub.switches != before

    cdef int push_out(self) except -1:
        """Send all that is held; what the peer makes of it is kept for the next call."""
        cdef Fiber me
        if self.length == 0 and not self.sending:
            return 0
        if running_hub() is None:
            if self.lock is None:
                self.lock = new_lock()
            with self.lock:
                return self.send_held()
        while self.sending:
            self.wait_for_turn()
        self.sending = True
        try:
            self.send_held()
        finally:
            self.sending = False
            if self.queue is not None:
                waiting, self.queue = self.queue, None
                for me in waiting:
                    me.wake()
        return 0

    cdef int wait_for_turn(self) except -1:
        cdef Hub hub = running_hub()
        if self.queue is None:
            self.queue = []
        self.queue.append(hub.current)
        hub.park_raw(-1.0)
        return 0

    cdef int send_held(self) except -1:
        cdef char *held
        cdef Py_ssize_t length, capacity
        while self.length:
            held, length, capacity = self.buffer, self.length, self.capacity
            self.buffer = NULL
            self.length = self.capacity = 0
            if self.watch is not None:
                self.watch.corked = None
            try:
                self.send_all(held, length)
            except OSError as error:
                self.error = error
            finally:
                if self.buffer is NULL and not self.coalesces:
                    self.buffer, self.capacity = held, capacity
                else:
                    give_back(held, capacity)
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
        """Nothing is held: hand the caller's own memory to the socket."""
        if self.kind == BY_METHODS:
            self.sock.sendall(data)
        else:
            self.send_all(bytes_, size)
        return 0

    cdef int send_descriptor(self, const char *data, Py_ssize_t size) except -1:
        """sendall of a plain socket: its time limit counts for the whole."""
        cdef int fd = self.sock.fileno()
        cdef Py_ssize_t count, done = 0
        cdef double limit
        timeout = self.sock.gettimeout()
        limit = -1.0 if timeout is None else monotonic() + <double>timeout
        while done < size:
            if limit >= 0.0 and timeout and not poll_for(fd, POLLOUT, limit):
                raise TimeoutError("timed out")
            with nogil:
                count = sys_send(fd, data + done, size - done, MSG_NOSIGNAL)
            if count >= 0:
                done += count
                continue
            if errno != EINTR and not (errno == EAGAIN and timeout):
                PyErr_SetFromErrno(OSError)
            PyErr_CheckSignals()
        return 0

    cdef void try_last(self) noexcept:
        """Nobody closed it: what fits into the kernel's buffer still goes, without waiting."""
        if self.length and self.kind == BY_FIBER and self.watch.fd >= 0:
            sys_send(self.watch.fd, self.buffer, self.length, MSG_NOSIGNAL)


cdef object new_lock = None


def open_stream(sock, *, Py_ssize_t wbufsize=0, bint coalesce=False, max_line=None):
    """Open both halves over a connected socket: (reader, writer).

    `wbufsize` as in `socketserver`: 0 sends each write at once, more is the size of the buffer,
    less takes 8192. `coalesce` holds writes back until the fiber waits, or the thread reads.
    `max_line` (bytes; None: any) bounds a line. The socket stays the caller's: both halves keep its
    descriptor open until they are closed, as the files of `socket.makefile` do.
    """
    cdef Reader reader = Reader(sock, max_line)
    cdef Writer writer = Writer(sock, 8192 if wbufsize < 0 else wbufsize, coalesce)
    if coalesce:
        reader.writer = writer
    return reader, writer


import threading

new_lock = threading.Lock
io.BufferedIOBase.register(Reader)
io.BufferedIOBase.register(Writer)
