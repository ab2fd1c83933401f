# The types of `emitter.py` where it is compiled.


cdef class Emitter:
    cdef public str name
    cdef public tuple subscribers

    cpdef emit(self, event)
    cdef _name(self, event)
    cpdef announce(self, event)
