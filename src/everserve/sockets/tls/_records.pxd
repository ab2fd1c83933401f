# What the compiled TLS sockets see of the records.
from cpython.pythread cimport PyThread_type_lock


cdef class Records:
    cdef readonly object tls
    cdef readonly bint ended
    cdef readonly bint broken
    cdef bint listens            # the peer has to say something first
    cdef readonly bint said      # close_notify has gone the other way
    cdef object in_bio           # ciphertext on its way to OpenSSL,
    cdef object out_bio          # and from it
    cdef object openssl          # what `SSLObject` only passes reads and writes on to
    cdef object fault            # met behind data, which is told of first
    cdef bytes early             # plain text that was read before somebody asked for it
    cdef bytes held              # ciphertext that OpenSSL has not been given,
    cdef Py_ssize_t at           # from here on
    cdef Py_ssize_t lacking      # bytes that a record lacks whose beginning OpenSSL has been given
    cdef Py_ssize_t more         # bytes that OpenSSL may have to read, at most; 0: none
    cdef PyThread_type_lock lock     # held for OpenSSL alone
    cdef bint taken
    cdef bint alone              # what OpenSSL has to read is one record, and all of it
    cdef bint quiet              # all that OpenSSL had to say was taken, and nothing but data has come

    cdef int enter(self) except -1
    cdef void leave(self) noexcept
    cdef bint holds(self) noexcept
    cdef list seal_batch(self, char *plain, Py_ssize_t size)
    cdef int check_writing(self) except -1
    cdef object open_sealed(self, bytes sealed, Py_ssize_t size)
    cdef bytes seal(self, plain)
    cdef int take_in(self, bytes sealed) except -1
    cdef int tell_fault(self) except -1
    cdef int open_early(self) except -1
    cdef bytes take_early(self, Py_ssize_t size)
    cdef bytes open_one(self, Py_ssize_t size)
    cdef Py_ssize_t open_into(self, char *target, Py_ssize_t size) except -2
    cdef int count_opened(self, Py_ssize_t asked, Py_ssize_t count) except -1
    cdef object open_all(self, Py_ssize_t size)
    cdef bint feed(self) except -1
    cdef bytes seal_all(self, plain)
