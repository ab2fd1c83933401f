# cython: binding=False
"""The record layer of TLS, compiled: ciphertext in, plain text out, and back, by OpenSSL on memory.

It waits for nothing and touches no socket; `records.py` is its reference, and says why things are
as they are.
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
    HEAD = 5                     # bytes of a record's header: its kind, two of version, two of length

cdef Py_ssize_t RECORD = reference.RECORD
cdef Py_ssize_t MEAL = reference._MEAL
cdef Py_ssize_t LONGEST = reference._LONGEST
cdef int FIRST_KIND = reference._KINDS[0]
cdef int LAST_KIND = reference._KINDS.stop - 1

cdef object SSLError = ssl.SSLError
cdef object SSLWantReadError = ssl.SSLWantReadError
cdef object SSLZeroReturnError = ssl.SSLZeroReturnError
cdef object MemoryBIO = ssl.MemoryBIO


cdef inline Py_ssize_t length_of(const unsigned char *head):
    return head[3] << 8 | head[4]


cdef class Records:
    """One connection's records. One thread may read while others write; who writes has the turn."""

    def __cinit__(self, context, bint server_side, server_hostname, session):
        self.lock = PyThread_allocate_lock()
        if self.lock is NULL:
            raise MemoryError
        self.in_bio = MemoryBIO()
        self.out_bio = MemoryBIO()
        self.tls = context.wrap_bio(
            self.in_bio, self.out_bio, server_side, server_hostname, session)
        self.openssl = self.tls._sslobj
        self.listens = server_side
        self.early = self.held = b""

    def __dealloc__(self):
        if self.lock is not NULL:
            PyThread_free_lock(self.lock)

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

    def agree(self):
        """Go on with the handshake as far as what is here allows; True when it is done."""
        self.quiet = False
        while not self.listens or self.more or self.feed():
            self.listens = False
            try:
                self.openssl.do_handshake()
            except SSLWantReadError:
                self.listens = True
                self.more = 0
                continue
            self.more = self.in_bio.pending
            return True
        return False

    # --- what is here --------------------------------------------------------------------------------

    @property
    def holding(self):
        """Whether there is anything that `read` has to look at before more ciphertext comes."""
        return self.holds()

    cdef bint holds(self) noexcept:
        return (self.more > 0 or self.lacking > 0 or self.ended or self.broken
                or PyBytes_GET_SIZE(self.held) > 0 or PyBytes_GET_SIZE(self.early) > 0)

    @property
    def speaking(self):
        """Whether there is ciphertext for the peer: an answer, an alert."""
        return not self.quiet and self.out_bio.pending > 0

    @property
    def locked(self):
        """Whether somebody is inside of OpenSSL: another thread, or who a signal has interrupted."""
        return self.taken

    def hold(self, bytes sealed not None):
        """Keep what has come."""
        self.take_in(sealed)

    cdef int take_in(self, bytes sealed) except -1:
        """Keep what has come; one record alone needs no more looking at."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(sealed)
        if PyBytes_GET_SIZE(self.held):
            self.held = self.held[self.at:] + sealed
            self.at = 0
            self.quiet = self.alone = False
        elif (size >= HEAD and not self.lacking
              and size == HEAD + length_of(<const unsigned char *>PyBytes_AS_STRING(sealed))):
            self.in_bio.write(sealed)
            if self.more:
                self.quiet = False
            self.alone = self.more == 0
            self.more += size
        else:
            self.held = sealed
            self.quiet = self.alone = False
        return 0

    def surplus(self):
        """After the end of TLS: what came in clear behind it, once."""
        cdef bytes held = self.held[self.at:]
        self.held = b""
        return self.in_bio.read() + held

    # --- reading -------------------------------------------------------------------------------------

    def read(self, bytes sealed not None, Py_ssize_t size):
        """The first `size` bytes of what is here with `sealed`, of as many records as there are.

        None when the rest of a record has to come first; b"" at the stream's end.
        """
        return self.open_sealed(sealed, size)

    cdef object open_sealed(self, bytes sealed, Py_ssize_t size):
        self.enter()
        try:
            if PyBytes_GET_SIZE(sealed):
                self.take_in(sealed)
            if PyBytes_GET_SIZE(self.early):
                return self.take_early(size)
            if self.ended:
                return b""
            if self.broken:
                self.tell_fault()
            if PyBytes_GET_SIZE(self.held) or (self.more > 0 and not self.alone):
                return self.open_all(size)
            return self.open_one(size)
        finally:
            self.leave()

    def read_early(self, bytes sealed not None=b""):
        """Read all that is here with `sealed`, before somebody asks for it; the bytes so read."""
        self.enter()
        try:
            if PyBytes_GET_SIZE(sealed):
                self.take_in(sealed)
            self.open_early()
        finally:
            self.leave()
        return PyBytes_GET_SIZE(self.early)

    def forget_early(self):
        """What was read so is of no use to anybody."""
        self.early = b""

    def raise_fault(self):
        """Raise what broke TLS behind what was read early, if anything did."""
        if self.fault is not None:
            raise self.fault

    cdef int tell_fault(self) except -1:
        fault, self.fault = self.fault, None
        raise fault or SSLError(ssl.SSL_ERROR_SSL, "the stream was broken before")

    cdef int open_early(self) except -1:
        while not self.ended and not self.broken:
            try:
                found = self.open_all(PY_SSIZE_T_MAX)
            except SSLError as error:
                self.fault = error.with_traceback(None)
                return 0
            if found is None:
                return 0
            self.early += <bytes>found
        return 0

    cdef bytes take_early(self, Py_ssize_t size):
        cdef bytes found = self.early[:size]
        self.early = self.early[size:]
        return found

    cdef bytes open_one(self, Py_ssize_t size):
        """Let OpenSSL read one record: its first `size` bytes; the lock is held.

        None when more has to come first. What comes out empty is the peer's close_notify.
        """
        cdef Py_ssize_t asked
        cdef bytes found
        while self.more > 0 or self.feed():
            asked = min(self.more, size)
            try:
                found = self.openssl.read(asked)
            except SSLWantReadError:
                self.more = 0
                self.quiet = self.alone = False
                continue
            except SSLZeroReturnError:
                found = b""
            except SSLError:
                self.broken = True
                self.quiet = False
                raise
            self.count_opened(asked, PyBytes_GET_SIZE(found))
            return found
        return None

    cdef Py_ssize_t open_into(self, char *target, Py_ssize_t size) except -2:
        """As `open_one`, to where there is room; the bytes that came, -1 when more has to."""
        cdef Py_ssize_t asked, count
        while self.more > 0 or self.feed():
            asked = min(self.more, size)
            try:
                count = self.openssl.read(
                    asked, PyMemoryView_FromMemory(target, asked, PyBUF_WRITE))
            except SSLWantReadError:
                self.more = 0
                self.quiet = self.alone = False
                continue
            except SSLZeroReturnError:
                count = 0
            except SSLError:
                self.broken = True
                self.quiet = False
                raise
            self.count_opened(asked, count)
            return count
        return -1

    cdef int count_opened(self, Py_ssize_t asked, Py_ssize_t count) except -1:
        if self.alone and 0 < count < asked:
            self.more = 0        # that was all of it, to know which OpenSSL need not be asked
            return 0
        if count == 0:
            self.ended = True
        self.more = self.in_bio.pending
        if count == asked:
            self.more += self.tls.pending()
        return 0

    cdef object open_all(self, Py_ssize_t size):
        """Up to `size` bytes of all records that are here, put together where they are decrypted.

        What breaks TLS behind the first is told when these have been read.
        """
        cdef PyObject *found
        cdef Py_ssize_t done = 0, count = 0
        if self.more == 0 and not self.feed():
            return None
        size = min(size, self.more + PyBytes_GET_SIZE(self.held) - self.at)
        found = new_bytes(NULL, size)
        try:
            while done < size:
                count = self.open_into(text_of(found) + done, size - done)
                if count <= 0:
                    break
                done += count
        except SSLError as error:
            if done == 0:
                Py_DECREF(found)
                raise
            self.fault = error.with_traceback(None)
        except BaseException:
            Py_DECREF(found)
            raise
        if done == 0 and count < 0:
            Py_DECREF(found)
            return None
        if done < size:
            _PyBytes_Resize(&found, done)
        data = <object>found
        Py_DECREF(found)
        return data

    cdef bint feed(self) except -1:
        """Give OpenSSL the next whole records, if there are any; of one that is not, the beginning."""
        cdef const unsigned char *text
        cdef Py_ssize_t size = PyBytes_GET_SIZE(self.held)
        cdef Py_ssize_t start = self.at, end = self.at + self.lacking, stop
        cdef int count = 0
        if not size:
            return False
        text = <const unsigned char *>PyBytes_AS_STRING(self.held)
        while size - end >= HEAD and not self.lacking:
            if not (FIRST_KIND <= text[end] <= LAST_KIND and text[end + 1] == 3
                    and length_of(text + end) <= LONGEST):
                end = size
                count = 0
                break
            stop = end + HEAD + length_of(text + end)
            if end > start and (stop > size or stop - start > MEAL):
                break
            end = stop
            count += 1
        if end == start:
            return False
        self.in_bio.write(PyMemoryView_FromMemory(
            <char *>text + start, min(end, size) - start, PyBUF_READ))
        if end < size:
            self.at = end
        else:
            self.held = b""
            self.at = 0
        if end > size:
            self.lacking = end - size
            return False
        self.alone = count == 1
        self.more = end - start if self.alone else self.in_bio.pending
        if self.lacking:         # of which OpenSSL may have taken the beginning in
            self.more += LONGEST
            self.lacking = 0
        return True

    # --- writing -------------------------------------------------------------------------------------

    def write(self, plain):
        """All of `plain` as ciphertext; before it comes what OpenSSL has to say besides."""
        return self.seal(plain)

    cdef bytes seal(self, plain):
        self.enter()
        try:
            self.check_writing()
            if PyBytes_CheckExact(plain) and 0 < PyBytes_GET_SIZE(plain) <= RECORD:
                self.openssl.write(plain)
                self.quiet = True
                return self.out_bio.read()
        finally:
            self.leave()
        return self.seal_all(plain)

    cdef bytes seal_all(self, plain):
        cdef Py_buffer view
        PyObject_GetBuffer(plain, &view, PyBUF_SIMPLE)
        try:
            return b"".join(self.seal_batch(<char *>view.buf, view.len))
        finally:
            PyBuffer_Release(&view)

    cdef list seal_batch(self, char *plain, Py_ssize_t size):
        """As `write`, a piece of ciphertext for each record."""
        cdef Py_ssize_t done = 0, count
        cdef list parts = []
        self.enter()
        try:
            self.check_writing()
            while done < size:
                count = min(size - done, RECORD)
                self.openssl.write(PyMemoryView_FromMemory(plain + done, count, PyBUF_READ))
                parts.append(self.out_bio.read())
                done += count
            return parts or [self.out_bio.read()]
        finally:
            self.leave()

    cdef int check_writing(self) except -1:
        if self.said or self.broken:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        return 0

    def outgoing(self):
        """The ciphertext that waits for the peer, once."""
        self.enter()
        try:
            self.quiet = True
            return self.out_bio.read()
        finally:
            self.leave()

    def say_goodbye(self):
        """Put close_notify into `outgoing`, unless TLS is broken; that is the end of writing."""
        self.enter()
        try:
            if self.said:
                return
            self.quiet = False
            self.open_early()
            if self.broken:
                return
            try:
                self.openssl.shutdown()
            except SSLWantReadError:
                pass
            self.said = True
        finally:
            self.leave()
