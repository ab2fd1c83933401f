# What the codecs call in C.
cdef list cut(bytes data, Py_ssize_t *place, bytes ending, Py_ssize_t most, Py_ssize_t max_length)
cpdef bytes join_lines(messages, bytes ending)
cpdef bytes join_frames(messages, Py_ssize_t size, bint is_little)
