# cython: binding=False
"""What the two halves of a compiled stream share: the socket, memory, and what any binary file has.

It stands below the reader and the writer; `half.py` is its reference.
"""
import io

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from everserve.fibers._sockets cimport fiber_socket_type, watch_of

from everserve.sockets.genuine import RealSocket

cdef enum:
    SHARED_BLOCKS = 32

cdef type socket_type = RealSocket
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


cdef bint has_block() noexcept:
    return shared_count > 0


cdef void give_back(char *block, Py_ssize_t capacity) noexcept:
    global shared_count
    if capacity == BLOCK and shared_count < SHARED_BLOCKS:
        shared[shared_count] = block
        shared_count += 1
    else:
        PyMem_RawFree(block)


cdef int kind_of(sock) except -1:
    if type(sock) is fiber_socket_type:
        return BY_FIBER
    if type(sock) is socket_type:
        return BY_DESCRIPTOR
    return BY_METHODS


cdef int release_descriptor(sock) except -1:
    """As `_decref_socketios`, which in Python costs a microsecond more for each connection."""
    cdef Py_ssize_t references = sock._io_refs
    if references > 0:
        sock._io_refs = references - 1
    if sock._closed:
        sock.close()
    return 0


cdef class Half(Buffered):
    """One direction of a stream: what the reader and the writer share."""

    def __cinit__(self, sock, *_arguments, **_options):
        self.shut = True
        self.sock = sock
        self.kind = kind_of(sock)
        if self.kind == BY_FIBER:
            self.watch = watch_of(sock)
        if self.kind != BY_METHODS or issubclass(type(sock), socket_type):
            sock._io_refs += 1   # as makefile() does: the descriptor stays open till its files close
        self.shut = False

    cdef int release(self) except -1:
        """Become closed; close the socket if its owner has closed it and this was its last file."""
        if not self.shut:
            self.shut = True
            if self.kind == BY_FIBER:
                release_descriptor(self.sock)
            elif issubclass(type(self.sock), socket_type):
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

    def read(self, size=-1):
        raise io.UnsupportedOperation("read")

    def read1(self, size=-1):
        raise io.UnsupportedOperation("read1")

    def readinto(self, target):
        raise io.UnsupportedOperation("readinto")

    def readinto1(self, target):
        raise io.UnsupportedOperation("readinto1")

    def readline(self, size=-1):
        raise io.UnsupportedOperation("readline")

    def readlines(self, hint=None):
        raise io.UnsupportedOperation("readlines")

    def __iter__(self):
        self.check_open()
        return self

    def __next__(self):
        raise io.UnsupportedOperation("readline")

    def write(self, data):
        raise io.UnsupportedOperation("write")

    def writelines(self, lines):
        raise io.UnsupportedOperation("writelines")

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
