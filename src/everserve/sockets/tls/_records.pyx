# cython: binding=False
"""The record layer of TLS, compiled: ciphertext in, plaintext out, and back, by OpenSSL on memory.

It waits for nothing and touches no socket. `records.py` is its reference, and gives the reasons for
what is done here.
"""
import errno
import os
import ssl

from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.buffer cimport (
    PyBUF_READ, PyBUF_SIMPLE, PyBUF_WRITE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.object cimport PyObject
from cpython.pythread cimport (
    NOWAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock,
    PyThread_release_lock, PyThread_type_lock, WAIT_LOCK,
)
from everserve.sockets.tls import records as reference

cdef extern from *:
    Py_ssize_t PY_SSIZE_T_MAX
    object PyMemoryView_FromMemory(char *memory, Py_ssize_t size, int flags)
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size) except NULL
    char *text_of "PyBytes_AS_STRING"(PyObject *bytes)
    int _PyBytes_Resize(PyObject **bytes, Py_ssize_t size) except -1
    void Py_DECREF(PyObject *o)

cdef enum:
    HEADER = 5                   # bytes: content type, two of version, two of length

cdef Py_ssize_t RECORD = reference.RECORD
cdef int DATALESS = reference.DATALESS
cdef int HOLD = reference.HOLD
cdef int DATALESS_EFFORT = reference._DATALESS_EFFORT
cdef Py_ssize_t LONGEST = reference._LONGEST
cdef int FIRST_TYPE = reference._CONTENT_TYPES[0]
cdef int LAST_TYPE = reference._CONTENT_TYPES.stop - 1

cdef object SSLError = ssl.SSLError
cdef object SSLWantReadError = ssl.SSLWantReadError
cdef object SSLZeroReturnError = ssl.SSLZeroReturnError
cdef object MemoryBIO = ssl.MemoryBIO


cdef inline Py_ssize_t length_of(const unsigned char *header):
    return header[3] << 8 | header[4]


cdef class Records:
    """One connection's records. One thread may read while others write, one at a time."""

    def __cinit__(self, context, bint server_side, server_hostname, session):
        self.lock = PyThread_allocate_lock()
        if self.lock is NULL:
            raise MemoryError
        self.in_bio = MemoryBIO()
        self.out_bio = MemoryBIO()
        self.made_with = (context, server_side, server_hostname, session)
        self.awaits_peer = server_side
        self.ahead = self.buffer = b""
        if not server_side:
            self.open()

    def __dealloc__(self):
        if self.lock is not NULL:
            PyThread_free_lock(self.lock)

    @property
    def tls(self):
        """Answers questions about the connection, as `cipher()` and `getpeercert()`."""
        if self.sslobject is None:
            self.open()
        return self.sslobject

    cdef int open(self) except -1:
        """Have OpenSSL's part made, which takes 10 KiB: a server's when its client has said hello."""
        context, server_side, server_hostname, session = self.made_with
        sslobject = context.wrap_bio(
            self.in_bio, self.out_bio, server_side, server_hostname, session)
        self.openssl = sslobject._sslobj
        self.sslobject = sslobject
        return 0

    cdef int enter(self) except -1:
        if not PyThread_acquire_lock(self.lock, NOWAIT_LOCK):
            with nogil:
                PyThread_acquire_lock(self.lock, WAIT_LOCK)
        self.taken = True
        return 0

    cdef void leave(self) noexcept:
        self.taken = False
        PyThread_release_lock(self.lock)

    # --- the handshake -----------------------------------------------------------------------------

    def do_handshake(self):
        """Advance the handshake as far as the input allows, or until `paused`; True when it is done."""
        cdef int left = HOLD // DATALESS_EFFORT
        self.silent = self.paused = False
        while not self.awaits_peer or self.unread or self.feed_openssl():
            if left == 0:
                self.paused = True
                return False
            left -= 1
            self.awaits_peer = False
            if self.openssl is None:
                self.open()
            try:
                self.openssl.do_handshake()
            except SSLWantReadError:
                self.awaits_peer = True
                self.unread = 0
                continue
            self.unread = self.in_bio.pending
            return True
        return False

    # --- input and output ----------------------------------------------------------------------------

    @property
    def has_input(self):
        """Whether `read` has anything to look at before more ciphertext comes."""
        return self.has_any_input()

    cdef bint has_any_input(self) noexcept:
        return (self.unread > 0 or self.missing > 0 or self.close_notify_received or self.broken
                or PyBytes_GET_SIZE(self.buffer) > 0 or PyBytes_GET_SIZE(self.ahead) > 0)

    @property
    def has_output(self):
        """Whether there is ciphertext for the peer that no `write` has returned, such as an alert."""
        return not self.silent and self.out_bio.pending > 0

    @property
    def output_size(self):
        """Bytes of ciphertext for the peer that no `write` has returned."""
        return self.out_bio.pending

    @property
    def locked(self):
        """Whether OpenSSL is in use: by another thread, or below a signal handler in this one."""
        return self.taken

    def feed(self, bytes ciphertext not None):
        """Keep what was received."""
        self.take_in(ciphertext)

    cdef int take_in(self, bytes ciphertext) except -1:
        """Keep what was received. One whole record goes to OpenSSL without being looked at again."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(ciphertext)
        if PyBytes_GET_SIZE(self.buffer):
            self.buffer = self.buffer[self.start:] + ciphertext
            self.start = 0
            self.silent = self.single = False
        elif (size >= HEADER and not self.missing and not self.unread
              and size == HEADER + length_of(<const unsigned char *>PyBytes_AS_STRING(ciphertext))):
            self.in_bio.write(ciphertext)
            self.single = True
            self.unread = size
        else:
            self.buffer = ciphertext
            self.silent = self.single = False
        return 0

    def take_output(self):
        """Return the ciphertext for the peer, once."""
        self.enter()
        try:
            self.silent = True
            return self.out_bio.read()
        finally:
            self.leave()

    def surplus(self):
        """After the end of TLS: return what came in clear behind it, once."""
        cdef bytes rest = self.buffer[self.start:]
        self.buffer = b""
        return self.in_bio.read() + rest

    # --- reading -------------------------------------------------------------------------------------

    def read(self, bytes ciphertext not None, Py_ssize_t size):
        """Feed `ciphertext`, then return up to `size` bytes of plaintext, of records received.

        None when the rest of a record is missing, or where it has `paused`; b"" at the end of the
        stream.
        """
        return self.decrypt(ciphertext, size)

    cdef object decrypt(self, bytes ciphertext, Py_ssize_t size):
        self.enter()
        try:
            if PyBytes_GET_SIZE(ciphertext):
                self.take_in(ciphertext)
            if PyBytes_GET_SIZE(self.ahead):
                return self.take_ahead(size)
            if self.close_notify_received:
                return b""
            if self.broken:
                self.raise_broken()
            self.paused = False
            if PyBytes_GET_SIZE(self.buffer) or (self.unread > 0 and not self.single):
                return self.decrypt_many(size, HOLD)
            return self.decrypt_one(size)
        finally:
            self.leave()

    def read_ahead(self, bytes ciphertext not None=b""):
        """Feed `ciphertext`, and decrypt records received for a later `read`; bytes so kept.

        There are more to decrypt where it has `paused`.
        """
        self.enter()
        try:
            if PyBytes_GET_SIZE(ciphertext):
                self.take_in(ciphertext)
            self.decrypt_ahead(HOLD)
        finally:
            self.leave()
        return PyBytes_GET_SIZE(self.ahead)

    def drop_ahead(self):
        """Drop what was read ahead."""
        self.ahead = b""

    def raise_deferred(self):
        """Raise what broke TLS behind the data that was read ahead, if anything did."""
        if self.deferred is not None:
            raise self.deferred

    cdef int raise_broken(self) except -1:
        error, self.deferred = self.deferred, None
        raise error or SSLError(ssl.SSL_ERROR_SSL, "the stream was broken before")

    cdef int decrypt_ahead(self, int effort) except -1:
        self.paused = False
        if self.close_notify_received or self.broken:
            return 0
        try:
            found = self.decrypt_many(PY_SSIZE_T_MAX, effort)
        except SSLError as error:
            self.deferred = error.with_traceback(None)
            return 0
        if found is not None:
            self.ahead += <bytes>found
        return 0

    cdef bytes take_ahead(self, Py_ssize_t size):
        cdef bytes found = self.ahead[:size]
        self.ahead = self.ahead[size:]
        return found

    cdef bytes decrypt_one(self, Py_ssize_t size):
        """Decrypt the only record there is, up to `size` bytes of it; the lock is held.

        None when more has to come first. An empty result is the peer's close_notify.
        """
        cdef Py_ssize_t asked = min(self.unread, size)
        cdef bytes found
        if asked <= 0:
            return None
        try:
            found = self.openssl.read(asked)
        except SSLWantReadError:
            self.count_dataless()
            return None
        except SSLZeroReturnError:
            found = b""
        except SSLError:
            self.note_broken()
            raise
        self.count_decrypted(asked, PyBytes_GET_SIZE(found))
        return found

    cdef Py_ssize_t decrypt_into(self, char *target, Py_ssize_t size) except -2:
        """As `decrypt_one`, of the record that OpenSSL has been given; -1 where it has no data."""
        cdef Py_ssize_t asked = min(self.unread, size), count
        try:
            count = self.openssl.read(
                asked, PyMemoryView_FromMemory(target, asked, PyBUF_WRITE))
        except SSLWantReadError:
            self.count_dataless()
            return -1
        except SSLZeroReturnError:
            count = 0
        except SSLError:
            self.note_broken()
            raise
        self.count_decrypted(asked, count)
        return count

    cdef int note_broken(self) except -1:
        self.broken = True
        self.silent = False
        return 0

    cdef int count_dataless(self) except -1:
        self.unread = 0
        self.silent = self.single = False
        self.dataless += 1
        if self.dataless > DATALESS:
            self.note_broken()
            raise SSLError(
                ssl.SSL_ERROR_SSL, f"the peer sends more than {DATALESS} records without data")
        return 0

    cdef int count_decrypted(self, Py_ssize_t asked, Py_ssize_t count) except -1:
        self.dataless = 0
        if self.single and 0 < count < asked:
            self.unread = 0      # all of the one record was read: OpenSSL need not be asked
            return 0
        if count == 0:
            self.close_notify_received = True
        self.unread = self.in_bio.pending
        if count == asked:
            self.unread += self.sslobject.pending()
        return 0

    cdef object decrypt_many(self, Py_ssize_t size, int effort):
        """Decrypt up to `size` bytes of as many records as `effort` allows, into one object.

        What breaks TLS behind the first is raised when these have been read.
        """
        cdef PyObject *found
        cdef Py_ssize_t done
        if self.unread == 0 and not self.feed_openssl():
            return None
        size = min(size, self.unread + PyBytes_GET_SIZE(self.buffer) - self.start)
        found = new_bytes(NULL, size)
        try:
            done = self.decrypt_records(text_of(found), size, effort)
        except BaseException:
            Py_DECREF(found)
            raise
        if done < 0:
            Py_DECREF(found)
            return None
        if done < size:
            _PyBytes_Resize(&found, done)
        data = <object>found
        Py_DECREF(found)
        return data

    cdef Py_ssize_t decrypt_records(self, char *target, Py_ssize_t size, int effort) except -2:
        """As `decrypt_many`, into `target`; the number of bytes, -1 when more has to come first."""
        cdef Py_ssize_t done = 0, count = -1
        while done < size:
            if effort <= 0:
                self.paused = self.unread > 0 or PyBytes_GET_SIZE(self.buffer) > 0
                break
            if self.unread <= 0 and not self.feed_openssl():
                break
            try:
                count = self.decrypt_into(target + done, size - done)
            except SSLError as error:
                if done == 0:
                    raise
                self.deferred = error.with_traceback(None)
                break
            if count == 0:
                break
            if count > 0:
                done += count
                effort -= 1
            else:
                effort -= DATALESS_EFFORT
        return -1 if done == 0 and count < 0 else done

    cdef bint feed_openssl(self) except -1:
        """Give OpenSSL the next record; True if it is whole, False if there is none."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(self.buffer)
        cdef Py_ssize_t start = self.start, end
        cdef bint is_record = True
        if not size:
            return False
        end = start + self.missing if self.missing else self.find_end(&is_record)
        if end == start:
            return False
        self.in_bio.write(PyMemoryView_FromMemory(
            PyBytes_AS_STRING(self.buffer) + start, min(end, size) - start, PyBUF_READ))
        if end < size:
            self.start = end
        else:
            self.buffer = b""
            self.start = 0
        if end > size:
            self.missing = end - size
            return False
        self.single = is_record and not self.missing
        self.unread = end - start if self.single else self.in_bio.pending
        if self.missing:         # of which OpenSSL may have buffered the beginning already
            self.unread += LONGEST
            self.missing = 0
        return True

    cdef Py_ssize_t find_end(self, bint *is_record) noexcept:
        """The end of the record to feed next, which may have only begun; of all that is no record."""
        cdef const unsigned char *text = <const unsigned char *>PyBytes_AS_STRING(self.buffer)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(self.buffer), start = self.start
        if size - start < HEADER:
            return start
        is_record[0] = (FIRST_TYPE <= text[start] <= LAST_TYPE and text[start + 1] == 3
                        and length_of(text + start) <= LONGEST)
        return start + HEADER + length_of(text + start) if is_record[0] else size

    # --- writing -------------------------------------------------------------------------------------

    def write(self, plaintext):
        """Encrypt all of `plaintext`; return the ciphertext, behind any other output."""
        return self.encrypt(plaintext)

    cdef bytes encrypt(self, plaintext):
        self.enter()
        try:
            self.check_writing()
            if PyBytes_CheckExact(plaintext) and 0 < PyBytes_GET_SIZE(plaintext) <= RECORD:
                self.openssl.write(plaintext)
                self.silent = True
                return self.out_bio.read()
        finally:
            self.leave()
        return self.encrypt_all(plaintext)

    cdef bytes encrypt_all(self, plaintext):
        cdef Py_buffer view
        PyObject_GetBuffer(plaintext, &view, PyBUF_SIMPLE)
        try:
            return b"".join(self.encrypt_batch(<char *>view.buf, view.len))
        finally:
            PyBuffer_Release(&view)

    cdef list encrypt_batch(self, char *plaintext, Py_ssize_t size):
        """As `write`; one piece of ciphertext for each record."""
        cdef Py_ssize_t done = 0, count
        cdef list parts = []
        self.enter()
        try:
            self.check_writing()
            while done < size:
                count = min(size - done, RECORD)
                self.openssl.write(PyMemoryView_FromMemory(plaintext + done, count, PyBUF_READ))
                parts.append(self.out_bio.read())
                done += count
            return parts or [self.out_bio.read()]
        finally:
            self.leave()

    cdef int check_writing(self) except -1:
        if self.close_notify_sent or self.broken:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        return 0

    def write_close_notify(self):
        """Put close_notify into the output, unless TLS is broken; this is the end of writing."""
        self.enter()
        try:
            if self.close_notify_sent:
                return
            self.silent = False
            self.decrypt_ahead(HOLD)
            while self.unread > 0 and not self.close_notify_received and not self.broken:
                self.decrypt_ahead(1)
            if self.broken:
                return
            try:
                self.openssl.shutdown()
            except SSLWantReadError:
                pass
            self.close_notify_sent = True
        finally:
            self.leave()
