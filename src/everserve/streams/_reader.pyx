# cython: binding=False
# (plain method descriptors: the interpreter calls them without a detour)
"""The compiled reader: the reading half of a stream, with its buffer in C.

It stands between a socket and the `rfile` of a handler; `reader.py` is its reference.
"""
import io
import socket

from cpython.buffer cimport PyBuffer_Release
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_RawMalloc
from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memchr, memcpy, memmove
from everserve.fibers._loop cimport Watch, monotonic
from everserve.fibers._scheduler cimport Scheduler, running_hub
from everserve.fibers._transfer cimport (
    get_writable, poll_once, raise_errno, receive, receive_by, time_out, try_receive,
)
from everserve.streams._half cimport (
    BLOCK, BY_DESCRIPTOR, BY_FIBER, BY_METHODS, HIGH_WATER, Half, give_back, take_block,
)
from everserve.streams._writer cimport Writer

from everserve.errors import LineTooLong
from everserve.sockets.tls import TLSSocket

cdef extern from *:
    """
    #include <poll.h>
    #include <sys/socket.h>
    """
    Py_ssize_t sys_recv "recv"(int fd, void *buffer, size_t size, int flags) nogil
    enum:
        POLLIN

cdef enum:
    OWN_BLOCK = 16384            # bytes of the buffer of a thread, which keeps it while it waits
    LEAST_ROOM = 8192                # a message of that size is read whole, as by socketserver
    READS_A_CHECKPOINT = 32          # lines, or other pieces, between two checkpoints

cdef enum:
    WOULD_BLOCK = -2


cdef Py_ssize_t try_fill(Scheduler hub, Watch watch, void *target, size_t size,
                         int flags) except -2:
    """Read into the buffer of the reader `target`, which keeps no more than its bytes for a wait."""
    cdef Reader reader = <Reader>target
    cdef Py_ssize_t count
    reader.make_room()
    count = try_receive(watch, reader.buffer + reader.end, reader.capacity - reader.end, 0)
    if count < 0:
        reader.shrink()
    return count


cdef class Reader(Half):
    """The reading half: the buffered binary file that `rfile` is.

    `max_line` bounds a line of `readline()` without a size and of iteration, newline included. None
    sets no bound, as in the standard library.
    """

    def __init__(self, sock, max_line=None):
        self.max_line = max_line

    def __dealloc__(self):
        if self.buffer is not NULL:
            give_back(self.buffer, self.capacity)

    def __del__(self):
        if self.sock is not None:  # else the constructor has failed: call nothing
            self.release()

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

    def flush(self):
        self.check_open()

    def close(self):
        """Stop reading. Closes the socket if its owner has closed it and this was its last file."""
        self.drop_buffer()
        if self.below is not None:
            self.below.close()
        self.release()

    @property
    def raw(self):
        """The unbuffered file below, as that of `makefile("rb").raw`: it reads past the buffer."""
        self.check_open()
        if self.below is None:
            self.sock._io_refs += 1  # it holds the socket too
            self.below = socket.SocketIO(self.sock, "r")
        return self.below

    def detach(self):
        """Become closed, and give the unbuffered file to the caller; what is buffered is dropped."""
        raw = self.raw
        self.below = None
        self.close()
        return raw

    # --- the buffer --------------------------------------------------------------------------

    cdef void drop_buffer(self) noexcept:
        if self.buffer is not NULL and not self.busy:
            give_back(self.buffer, self.capacity)
            self.buffer = NULL
            self.start = self.end = self.capacity = 0

    cdef int make_room(self) except -1:
        """Make room at the end of the buffer for a read of some size."""
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

    cdef int shrink(self) except -1:
        """Before a wait, reduce the buffer to the bytes that are in it."""
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
        """Read once more into the buffer: how many bytes; 0 at the end; or WOULD_BLOCK."""
        cdef Py_ssize_t count
        self.check_readable()
        if self.kind == BY_FIBER:
            count = self.fill_by_fiber()
        elif self.kind == BY_DESCRIPTOR:
            self.make_room()
            count = self.read_descriptor(self.buffer + self.end, self.capacity - self.end)
        else:
            count = self.fill_by_methods()
        self.check_open()            # it may have been closed meanwhile
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
        cdef Scheduler hub = running_hub()
        cdef Watch watch = self.watch
        cdef Py_ssize_t count
        if hub is not None:
            hub.checkpoint()         # the wait of a fiber flushes the writer
        elif self.writer is not None:
            self.writer.flush_buffer()
        if not watch.readable:
            self.shrink()
        if watch.timeout == 0.0:
            count = try_fill(hub, watch, <void *>self, 0, 0)
            return count if count >= 0 else WOULD_BLOCK
        count = receive_by(try_fill, hub, watch, <void *>self, 0, 0)
        if count < 0:
            self.timed_out = True
            time_out()
        return count

    cdef Py_ssize_t read_descriptor(self, char *target, Py_ssize_t size) except -3:
        """recv(2) as a plain socket does it: with its timeout, and without the GIL."""
        cdef int fd
        cdef Py_ssize_t count
        cdef double limit
        if self.writer is not None:
            self.writer.flush_buffer()
        fd = self.sock.fileno()
        timeout = self.sock.gettimeout()
        limit = -1.0 if timeout is None else monotonic() + <double>timeout
        while True:
            if limit >= 0.0 and timeout and not poll_once(fd, POLLIN, limit):
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
                raise_errno()
            PyErr_CheckSignals()

    cdef Py_ssize_t fill_by_methods(self) except -3:
        """One read by the method of the socket, into memory that is not shared."""
        if self.writer is not None:
            self.writer.flush_buffer()
        self.shrink()
        try:
            if issubclass(type(self.sock), TLSSocket):    # its recv saves a copy and a clear
                found = self.sock.recv(BLOCK)
                count = len(found)
            else:
                found = bytearray(OWN_BLOCK)
                count = self.sock.recv_into(found)
        except TimeoutError as error:
            self.timed_out = type(error) is TimeoutError  # that of a Timeout block leaves it usable
            raise
        except BlockingIOError:
            return WOULD_BLOCK
        if count:
            self.take_in(found, count)
        return count

    cdef int take_in(self, found, Py_ssize_t count) except -1:
        cdef Py_ssize_t done = 0, part
        cdef const char *data
        if type(found) is bytes:
            data = PyBytes_AS_STRING(found)
        else:
            data = <char *><bytearray>found
        self.check_readable()
        while done < count:
            self.make_room()
            part = min(count - done, self.capacity - self.end)
            memcpy(self.buffer + self.end, data + done, part)
            self.end += part
            done += part
        self.end -= count            # fill() adds them
        return 0

    # --- lines ---------------------------------------------------------------------------------

    def __next__(self):
        cdef char *begin = self.buffer + self.start
        cdef char *newline
        cdef Py_ssize_t size
        if self.start < self.end:
            newline = <char *>memchr(begin, c"\n", self.end - self.start)
            if newline is not NULL:
                self.reads += 1
                if self.reads >= READS_A_CHECKPOINT:
                    self.checkpoint()
                    return self.read_line(-1)
                size = newline - begin + 1
                if self.longest < 0 or size <= self.longest:
                    self.start += size
                    return PyBytes_FromStringAndSize(begin, size)
        line = self.read_line(-1)
        if PyBytes_GET_SIZE(line) == 0:
            raise StopIteration
        return line

    cdef inline int count_read(self) except -1:
        self.reads += 1
        return self.checkpoint() if self.reads >= READS_A_CHECKPOINT else 0

    cdef int checkpoint(self) except -1:
        """Every so many pieces: let the fiber give way if it has held the loop for long."""
        cdef Scheduler hub = running_hub()
        self.reads = 0
        if hub is not None:
            hub.checkpoint()
        return 0

    def readline(self, size=-1):
        """Read up to a newline, included, at most `size` bytes (negative or None: any number)."""
        self.check_open()
        self.count_read()
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
        self.seen = 0
        self.start += size
        return PyBytes_FromStringAndSize(self.buffer + start, size)

    # --- without a wait, for tasks ---------------------------------------------------------------

    @property
    def buffered(self):
        """How many bytes are there without a wait."""
        return self.end - self.start

    cpdef Py_ssize_t receive(self) except -1:
        """Read once more into the buffer: how many bytes; 0 at the end of the stream."""
        cdef Py_ssize_t count = self.fill()
        self.shrink()                # many may receive before the first of their tasks runs
        return max(0, count)

    cpdef bytes take(self, Py_ssize_t size=-1):
        """What is in the buffer, at most `size` bytes (negative: all)."""
        cdef Py_ssize_t count = self.end - self.start
        self.check_open()
        return self.cut(count if size < 0 or size > count else size)

    cpdef bytes take_line(self):
        """The next line if the buffer has it whole, else None; raises as `readline`."""
        cdef Py_ssize_t count = self.end - self.start
        cdef char *begin = self.buffer + self.start
        cdef char *newline
        self.check_open()
        if count > self.seen:
            newline = <char *>memchr(begin + self.seen, c"\n", count - self.seen)
            if newline is not NULL:
                count = newline - begin + 1
                if self.longest >= 0 and count > self.longest:
                    self.refuse_line()
                return self.cut(count)
            self.seen = count
        if self.longest >= 0 and count >= self.longest:
            self.refuse_line()
        return None

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
        """Read exactly `size` bytes, fewer only at the end; without a size, all until the end."""
        cdef Py_ssize_t wanted = -1 if size is None else size
        self.check_open()
        self.count_read()
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
        """Read through the buffer; a long read, past the buffer, into the result itself."""
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
            self.check_open()
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
        """One read past the buffer, which is empty, into the memory of the caller."""
        self.check_readable()
        if self.kind == BY_DESCRIPTOR:
            return self.read_descriptor(target, size)
        self.shrink()
        if self.writer is not None and running_hub() is None:
            self.writer.flush_buffer()
        try:
            return receive(self.watch, target, size, 0)
        except BlockingIOError:
            return WOULD_BLOCK
        except TimeoutError as error:
            self.timed_out = type(error) is TimeoutError
            raise

    def read1(self, size=-1):
        """Read what is there, at most `size` bytes; wait only if nothing is there."""
        cdef Py_ssize_t wanted = -1 if size is None else size
        self.check_open()
        self.count_read()
        if wanted == 0:
            return b""
        if self.start == self.end and self.fill() <= 0:
            return b""
        if wanted < 0 or wanted > self.end - self.start:
            wanted = self.end - self.start
        return self.cut(wanted)

    def peek(self, size=0):
        """Return what is there without consuming it; wait only if nothing is there."""
        self.check_open()
        if self.start == self.end:
            self.fill()
        return b"" if self.buffer is NULL else PyBytes_FromStringAndSize(
            self.buffer + self.start, self.end - self.start)

    def readinto(self, target):
        """Fill `target`, less only at the end; return how many bytes."""
        return self.read_view(target, True)

    def readinto1(self, target):
        """Put what is there into `target`; wait only if nothing is there. Return how many bytes."""
        return self.read_view(target, False)

    cdef object read_view(self, target, bint wholly):
        cdef Py_buffer view
        cdef Py_ssize_t done = 0, part, count = 0
        self.check_open()
        self.count_read()
        get_writable(target, &view)
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


io.BufferedIOBase.register(Reader)
