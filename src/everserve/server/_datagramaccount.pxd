# The types of `datagramaccount.py` where it is compiled.
cimport cython

from everserve.lifecycle._connection cimport Connection as Entry
from everserve.lifecycle._making cimport Maker
from everserve.sockets._runs cimport Run as BatchRun

# Not looked up by name at each use.
cdef object monotonic, _ACCEPTED, _HANDLING, FiberExit


cdef class DatagramAccount:
    cdef object _flow, _reader, _control, _progress, _connections, _emitter, _watchdog
    cdef dict _filed, _known
    cdef Maker _accepted, _opened, _finished
    cdef object _sweep, _settings, _access, _most_of_peer, _most, _bucket, _timeout
    cdef bint _has_checks, _has_peer_rate

    cdef _note(self, settings)
    cpdef begin(self, settings)
    cpdef bint admit(self, BatchRun run, request, address) except -1
    cpdef open(self, BatchRun run)
    cpdef close(self, BatchRun run, address)
    cpdef fail(self, BatchRun run, error)
    cdef _emit(self, BatchRun run, event)
    cdef bint _is_admitted(self, address) except -1
    cdef bint _is_permitted(self, address) except -1
    cpdef entered(self, BatchRun run, Entry connection)
    cpdef left(self, Entry connection)
    cdef _open_entry(self, Entry connection)
