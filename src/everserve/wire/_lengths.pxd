# The types of `lengths.py` where it is compiled.
# Not looked up by name at each use.
cdef object cut_frames, join_frames, missing_bytes


cdef class Lengths:
    cdef Py_ssize_t _size        # bytes of a length; 0: a varint
    cdef bint _is_little
    cdef unsigned long long _most

    cpdef tuple decode_many(self, bytes data, Py_ssize_t start, Py_ssize_t most)
    cdef object _refusal(self)
    cpdef bytes encode_many(self, messages)
