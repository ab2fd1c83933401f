# What the compiled TLS sockets see of the records.
from cpython.pythread cimport PyThread_type_lock


cdef class Records:
    cdef readonly bint close_notify_received
    cdef readonly bint close_notify_sent
    cdef readonly bint broken
    cdef readonly bint paused    # whether the last call has stopped before the end of the input
    cdef int dataless            # records in a row without data
    cdef bint awaits_peer        # whether the handshake needs input first
    cdef object made_with        # what OpenSSL's part is made with,
    cdef object sslobject        # and this, once it is
    cdef object in_bio           # ciphertext on its way to OpenSSL,
    cdef object out_bio          # and from it
    cdef object openssl          # what `SSLObject` passes reads and writes on to
    cdef object deferred         # the error met behind data; raised after that is read
    cdef bytes ahead             # plaintext that was read ahead
    cdef bytes buffer            # ciphertext that OpenSSL has not been given,
    cdef Py_ssize_t start        # from this index on
    cdef Py_ssize_t missing      # bytes that a record lacks whose beginning OpenSSL has been given
    cdef Py_ssize_t unread       # an upper bound of the bytes that OpenSSL can read; 0: none
    cdef PyThread_type_lock lock     # held for each use of OpenSSL
    cdef bint taken
    cdef bint single             # what OpenSSL can read is one record, and all of it
    cdef bint silent             # there is no output: it was taken, and only data has come since

    cdef int open(self) except -1
    cdef int enter(self) except -1
    cdef void leave(self) noexcept
    cdef bint has_any_input(self) noexcept
    cdef list encrypt_batch(self, char *plaintext, Py_ssize_t size)
    cdef int check_writing(self) except -1
    cdef object decrypt(self, bytes ciphertext, Py_ssize_t size)
    cdef bytes encrypt(self, plaintext)
    cdef int take_in(self, bytes ciphertext) except -1
    cdef int raise_broken(self) except -1
    cdef int decrypt_ahead(self, int effort) except -1
    cdef bytes take_ahead(self, Py_ssize_t size)
    cdef bytes decrypt_one(self, Py_ssize_t size)
    cdef Py_ssize_t decrypt_into(self, char *target, Py_ssize_t size) except -2
    cdef int count_decrypted(self, Py_ssize_t asked, Py_ssize_t count) except -1
    cdef int note_broken(self) except -1
    cdef int count_dataless(self) except -1
    cdef object decrypt_many(self, Py_ssize_t size, int effort)
    cdef Py_ssize_t decrypt_records(self, char *target, Py_ssize_t size, int effort) except -2
    cdef bint feed_openssl(self) except -1
    cdef Py_ssize_t find_end(self, bint *is_record) noexcept
    cdef bytes encrypt_all(self, plaintext)
