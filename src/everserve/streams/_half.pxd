# What both halves of a stream share, and the blocks of memory that they borrow.
from everserve.fibers._fiber cimport Corked
from everserve.fibers._loop cimport Watch

cdef enum:
    BY_FIBER                     # a FiberSocket of the compiled engine: its waits park
    BY_DESCRIPTOR                # exactly socket.socket: its system calls, without the GIL
    BY_METHODS                   # any other: what its own recv_into (TLS: recv) and sendall do

cdef enum:
    BLOCK = 65536                # bytes a fiber's read may find; shared, as nobody keeps one waiting
    HIGH_WATER = 65536           # bytes a coalescing writer gathers

cdef char *take_block() except NULL
cdef bint has_block() noexcept
cdef void give_back(char *block, Py_ssize_t capacity) noexcept


cdef class Half(Corked):
    cdef readonly object sock
    cdef Watch watch
    cdef int kind
    cdef bint shut

    cdef int let_go(self) except -1
    cdef int check_open(self) except -1
