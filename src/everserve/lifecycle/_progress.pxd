# The types of `progress.py` where it is compiled.
cimport cython

from everserve.lifecycle._connection cimport Connection as Entry
from everserve.lifecycle._connections cimport ConnectionTable as Table


cdef bint COMPILED
# Not looked up by name at each use.
cdef object monotonic, _HANDLING, _CLOSED


cdef class Progress:
    cdef Table _connections
    cdef object _control
    cdef object _emitter
    cdef object _life
    cdef object _notifier
    cdef public object on_handshake_done
    cdef object _truncations
    cdef double _truncations_reported

    @cython.locals(connection=Entry)
    cpdef Entry accepted(self, request, peer)
    @cython.locals(unbegun=bint)
    cdef bint _begins(self, Entry connection) except -1
    cpdef bint opened(self, Entry connection, peer, here) except -1
    cpdef ended(self, Entry connection)
