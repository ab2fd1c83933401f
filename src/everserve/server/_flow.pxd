# The types of `flow.py` where it is compiled.
cimport cython

from everserve.lifecycle._connection cimport Connection as Entry
from everserve.lifecycle._connections cimport ConnectionTable as Table
from everserve.lifecycle._progress cimport Progress as Steps

# Not looked up by name at each use.
cdef object _CLOSED, Datagram, is_datagram, threadwaits, monotonic


cdef class Flow:
    cdef object _settings
    cdef object _control
    cdef Steps _progress
    cdef Table _connections
    cdef dict _filed
    cdef object _watchdog
    cdef object _strategy
    cdef object _life
    cdef object _sweep
    cdef object _swept_for
    cdef object _noted
    cdef bint _has_checks, _counts_alone, _waits, _limits_handshakes
    cdef bint _is_entered, _takes_steps, _deadlines_alone
    cdef Py_ssize_t _most
    cdef bint _bounds_datagrams
    cdef object _most_sessions

    cdef _note(self, settings)

    cpdef bint has_room(self) except -1
    @cython.locals(connection=Entry, checks=bint)
    cpdef admit(self, hooks, request, client_address)
    @cython.locals(connection=Entry)
    cpdef run(self, hooks, request, client_address)
    @cython.locals(connection=Entry, begun=bint)
    cpdef finish(self, hooks, request, client_address)
    @cython.locals(connection=Entry)
    cpdef shut_down(self, hooks, request, bint is_stream=*)
    @cython.locals(connection=Entry)
    cpdef close(self, hooks, request, bint is_stream=*)
    cpdef end(self, hooks, Entry connection)
    cdef bint _has_place(self) except -1
    cdef _start(self, hooks, Entry connection, request, client_address, settings)
    cdef bint _needs_steps(self, settings, Entry connection, client_address) except -1
    cdef bint _is_swept(self, settings, Entry connection, client_address) except -1
