# The types of `connection.py` where it is compiled.
# Not looked up by name at each use.
cdef object monotonic, _ACCEPTED, _CLOSED


cdef class Connection:
    cdef public object id, place, peer, state
    cdef public double started, opened
    cdef public object reference, table, owner, key, runner
    cdef public bint unbegun, failed, gone, in_crowd, in_handshake
    cdef public object counted, origin, held_by, duplicate, missed
    cdef public object deadlines, proxy, tls, context, worker, counter, conversation, arrival
    cdef dict __dict__

    cpdef close(self)
