# What makes events: what `_making.pyx` gives to other modules.


cdef class Maker:
    cdef object kind
    cdef Py_ssize_t offsets[5]
    cdef int size

    cdef void put(self, event, int field, value) noexcept
    cpdef object make(self, server, first, second, third=*)
