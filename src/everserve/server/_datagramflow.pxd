# The types of `datagramflow.py` where it is compiled.


cdef class DatagramFlow:
    cdef object _flow, _account, _settings, _progress, _connections, _strategy, _emitter
    cdef public object sessions
    cdef tuple _looked_at
    cdef bint _needs_nothing, _takes_batches

    cpdef bint _is_quick(self, hooks) except -1
    cdef bint _has_no_hooks(self, hooks) except -1
