# The run of a batch: what `_runs.pyx` gives to other modules.
from everserve.sockets._datagrams cimport Exchange


cdef class Batch:
    cdef list received
    cdef Py_ssize_t taken


cdef class Calling:
    cdef object handler
    cdef unsigned int version    # of the class; 0: unknown
    cdef bint is_usual, has_setup

    cdef int look(self) except -1
    cdef int call(self, request, address, server) except -1
    cdef int take(self, handling, result, str hook) except -1


cdef class Run:
    cdef Exchange exchange
    cdef Batch batch
    cdef Calling calling
    cdef readonly object server, account
    cdef object on_error, on_end
    cdef object context          # of the handlers, until one of them sets a variable
    cdef size_t variables        # what the context had at first
    cdef public object request, address
    cdef public object runner, entry, number
    cdef public double began
    cdef public bint opened, emitting, cut
    cdef Py_ssize_t counted

    cdef int handle_one(self, request, address) except -1
    cdef int run_handler(self, request, address) except -1
    cdef int end_one(self, request, address) except -1
    cpdef take_entry(self)
