# The types of `sessionstate.py` where it is compiled.
cimport cython

# Not looked up by name at each use.
cdef object monotonic, current
cdef bint COMPILED


cdef class SessionState:
    cdef public object peer, current
    cdef public Py_ssize_t received, sent, unread
    cdef public bint validated, is_over
    cdef object _sock, _keeper, _first, _waiting, _wake
    cdef list _callbacks
    cdef double _moved
    cdef bint _is_first

    cpdef put(self, datagram, Py_ssize_t limit, drops)
    @cython.locals(waiting=Py_ssize_t)
    cdef object _add(self, datagram, Py_ssize_t limit, drops)
    cdef _take_all(self)
    cdef _wait(self)
    @cython.locals(size=Py_ssize_t)
    cpdef send(self, data)
    cpdef finish(self)
    cpdef cut(self)
    cdef _notify(self)
