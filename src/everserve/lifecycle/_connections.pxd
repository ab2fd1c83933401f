# The types of `connections.py` where it is compiled.
cimport cython

from everserve.lifecycle._connection cimport Connection as Entry


cdef bint COMPILED
# Not looked up by name at each use.
cdef object Connection, _Socket, ref


cdef class ConnectionTable:
    cdef readonly dict by_request
    cdef readonly dict _by_descriptor
    cdef readonly set _shed
    cdef object _numbers
    cdef public object accepted, moved
    cdef readonly set runs
    cdef readonly dict _by_key

    @cython.locals(connection=Entry)
    cpdef Entry add(self, request, peer, owner=*)
    cpdef replace(self, Entry connection, request, owner)
    cpdef note_freed(self, Entry connection, owner)
    @cython.locals(connection=Entry)
    cpdef Entry find(self, request)
    @cython.locals(connection=Entry)
    cpdef Entry unfile(self, request)
    cpdef object next_number(self)
    cpdef bint remove(self, Entry connection) except -1
