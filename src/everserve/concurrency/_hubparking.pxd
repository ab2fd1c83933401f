# The types of `hubparking.py` where it is compiled.
cdef class HubParking:
    cdef public bint draining
    cdef public object departure
    cdef public object call

    cpdef park(self, conversation)
