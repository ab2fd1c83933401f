# What both halves of a stream share, and the blocks of memory that they take and give back.
from everserve.fibers._fiber cimport Buffered
from everserve.fibers._loop cimport Watch

cdef enum:
    BY_FIBER                     # a FiberSocket of the compiled engine: its waits park
    BY_DESCRIPTOR                # exactly a socket.socket: system calls, without the GIL
    BY_METHODS                   # any other: its own recv_into (TLS: recv) and sendall

cdef enum:
    BLOCK = 65536                # bytes of a block that fibers share: none keeps it while it waits
    HIGH_WATER = 65536           # bytes that a coalescing writer buffers

cdef char *take_block() except NULL
cdef bint has_block() noexcept
cdef void give_back(char *block, Py_ssize_t capacity) noexcept


cdef class Half(Buffered):
    cdef readonly object sock
    cdef Watch watch
    cdef int kind
    cdef bint shut

    cdef int release(self) except -1
    cdef int check_open(self) except -1
