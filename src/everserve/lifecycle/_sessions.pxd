# The types of `sessions.py` where it is compiled.
cimport cython

from everserve.lifecycle._sessionstate cimport SessionState as State


cdef class SessionTable:
    cdef object _settings, _control, _progress, _emitter, _life, _lock, _withheld
    cdef dict _by_peer

    @cython.locals(state=State)
    cpdef route(self, datagram, peer)
    cdef bint _put(self, State state, datagram) except -1
    cpdef close(self, session)
    cpdef budget(self)
    cpdef withheld(self, state)
