# The types of `lines.py` where it is compiled.
# Not looked up by name at each use.
cdef object cut_lines, join_lines


cdef class Lines:
    cdef readonly Py_ssize_t max_length
    cdef readonly bytes ending

    cpdef tuple decode_many(self, bytes data, Py_ssize_t start, Py_ssize_t most)
    cdef object _too_long(self)
    cpdef bytes encode_many(self, messages)
