# The types of `lengths.py` where it is compiled.
cimport cython


cdef class Lengths:
    cdef Py_ssize_t _size        # bytes of a length; 0: a varint
    cdef bint _is_little
    cdef unsigned long long _most

    @cython.locals(body=Py_ssize_t, size=Py_ssize_t, length="unsigned long long")
    cpdef tuple decode_many(self, bytes data, Py_ssize_t start, Py_ssize_t most)

    @cython.locals(length="unsigned long long", index=Py_ssize_t, byte="unsigned char")
    cdef (Py_ssize_t, unsigned long long) _read_header(
        self, bytes data, Py_ssize_t start, Py_ssize_t size) noexcept

    @cython.locals(length="unsigned long long", factor="unsigned long long", index=Py_ssize_t,
                   byte="unsigned char", bits="unsigned long long")
    cdef (Py_ssize_t, unsigned long long) _read_varint(
        self, bytes data, Py_ssize_t start, Py_ssize_t size) noexcept

    cdef bytes _header(self, Py_ssize_t length)
