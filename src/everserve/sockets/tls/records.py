"""The record layer of TLS: ciphertext in, plaintext out, and back, by OpenSSL on memory.

It waits for nothing and touches no socket: a `Wire` brings and takes the ciphertext. `_records.pyx`
is the same, compiled.
"""

import errno
import os
import ssl
import struct
import sys
import threading
from typing import Any

__all__ = ["RECORD", "Records"]

RECORD = 16_384
"""The most bytes of plaintext in one record (RFC 8446, section 5.1)."""

_FEED = RECORD + 256
"""Bytes of ciphertext given to OpenSSL at once, unless one record is longer. OpenSSL's buffer never
shrinks: each connection keeps a third more than the most that its buffer has ever held."""

_LONGEST = RECORD + 2048
"""The most bytes of ciphertext in a record of TLS 1.2; TLS 1.3 allows fewer (RFC 5246, 6.2.3;
RFC 8446, 5.2)."""

_HEADER = struct.Struct(">BBxH")  # content type, two bytes of version, length
_CONTENT_TYPES = range(20, 25)


class Records:
    """One connection's records. One thread may read while others write, one at a time."""

    __slots__ = (
        "_ahead",
        "_awaits_peer",
        "_buffer",
        "_deferred",
        "_in_bio",
        "_lock",
        "_missing",
        "_openssl",
        "_out_bio",
        "_start",
        "_unread",
        "broken",
        "close_notify_received",
        "close_notify_sent",
        "tls",
    )

    tls: ssl.SSLObject
    """Answers questions about the connection, as `cipher()` and `getpeercert()`."""

    close_notify_received: bool
    """Whether the peer has ended its side (RFC 8446, section 6.1)."""

    close_notify_sent: bool
    """Whether this side has ended: its close_notify is in the output, or was."""

    broken: bool
    """Whether the peer has sent what is not TLS, or not encrypted with the keys: reading ends."""

    def __init__(
        self,
        context: ssl.SSLContext,
        server_side: bool,
        server_hostname: str | None,
        session: ssl.SSLSession | None,
    ) -> None:
        self._in_bio = ssl.MemoryBIO()
        self._out_bio = ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._in_bio, self._out_bio, server_side, server_hostname, session
        )
        # `SSLObject` only passes reads and writes on to this. Without it an echo saves two calls.
        self._openssl: Any = getattr(self.tls, "_sslobj", self.tls)
        self._lock = threading.Lock()  # held for each use of OpenSSL
        self._awaits_peer = server_side  # whether the handshake needs input first
        self.close_notify_received = self.close_notify_sent = self.broken = False
        self._ahead = b""  # plaintext that was read ahead
        self._buffer = b""  # ciphertext that OpenSSL has not been given,
        self._start = 0  # from this index on
        self._missing = 0  # bytes that a record lacks whose beginning OpenSSL has been given
        self._unread = 0  # an upper bound of the bytes that OpenSSL can read; 0: none
        self._deferred: ssl.SSLError | None = None  # met behind data; raised after that is read

    # --- the handshake -------------------------------------------------------------------------

    def do_handshake(self) -> bool:
        """Advance the handshake as far as the input allows; True when it is done.

        OpenSSL is not called without input, as that costs an exception: 8 us of a handshake's 450.
        """
        while not self._awaits_peer or self._unread or self._feed_openssl():
            self._awaits_peer = False
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._awaits_peer, self._unread = True, 0
                continue
            self._unread = self._in_bio.pending
            return True
        return False

    # --- input and output ------------------------------------------------------------------------

    @property
    def has_input(self) -> bool:
        """Whether `read` has anything to look at before more ciphertext comes."""
        begun = self._unread or self._missing or self._buffer
        return bool(begun or self._ahead or self.close_notify_received or self.broken)

    @property
    def has_output(self) -> bool:
        """Whether there is ciphertext for the peer that no `write` has returned, such as an alert."""
        return self._out_bio.pending > 0

    @property
    def locked(self) -> bool:
        """Whether OpenSSL is in use: by another thread, or below a signal handler in this one."""
        return self._lock.locked()

    def feed(self, ciphertext: bytes) -> None:
        """Keep what was received. One whole record goes to OpenSSL without being looked at again."""
        size = len(ciphertext)
        if self._buffer:
            self._buffer = self._buffer[self._start :] + ciphertext
            self._start = 0
        elif size >= 5 and size == 5 + (ciphertext[3] << 8 | ciphertext[4]) and not self._missing:
            self._in_bio.write(ciphertext)
            self._unread = size
        else:
            self._buffer = ciphertext

    def take_output(self) -> bytes:
        """Return the ciphertext for the peer, once."""
        with self._lock:
            return self._out_bio.read()

    def surplus(self) -> bytes:
        """After the end of TLS: return what came in clear behind it, once."""
        rest, self._buffer = self._buffer[self._start :], b""
        return self._in_bio.read() + rest

    # --- reading ---------------------------------------------------------------------------------

    def read(self, ciphertext: bytes, size: int) -> bytes | None:
        """Feed `ciphertext`, then return up to `size` bytes of plaintext, of all records received.

        None when the rest of a record is missing; b"" at the end of the stream. What breaks TLS is
        raised after all data before it was read, and again by each later call.

        Errors: `ssl.SSLError`; the alert for the peer is in the output.
        """
        with self._lock:
            if ciphertext:
                self.feed(ciphertext)
            if self._ahead:
                return self._take_ahead(size)
            if self.close_notify_received:
                return b""
            if self.broken:
                error, self._deferred = self._deferred, None
                raise error or ssl.SSLError(ssl.SSL_ERROR_SSL, "the stream was broken before")
            try:
                found = self._decrypt(size)
            except ssl.SSLError:
                self.broken = True
                raise
            if (self._unread or self._buffer) and found:
                found = self._decrypt_more(size, found)
            return found

    def read_ahead(self, ciphertext: bytes = b"") -> int:
        """Feed `ciphertext`, and decrypt all records received for a later `read`; bytes so kept."""
        with self._lock:
            if ciphertext:
                self.feed(ciphertext)
            self._decrypt_ahead()
        return len(self._ahead)

    def drop_ahead(self) -> None:
        """Drop what was read ahead."""
        self._ahead = b""

    def raise_deferred(self) -> None:
        """Raise what broke TLS behind the data that was read ahead, if anything did."""
        if self._deferred is not None:
            raise self._deferred

    def _decrypt_ahead(self) -> None:
        if not self.close_notify_received and not self.broken:
            self._ahead = self._decrypt_more(sys.maxsize, self._ahead)

    def _take_ahead(self, size: int) -> bytes:
        found, self._ahead = self._ahead[:size], self._ahead[size:]
        return found

    def _decrypt(self, size: int) -> bytes | None:
        """Decrypt one record, up to `size` bytes of it; the lock is held.

        None when more has to come first. An empty result is the peer's close_notify.
        """
        while self._unread or self._feed_openssl():
            # OpenSSL allocates what it is asked for: do not ask for more than can be there.
            asked = self._unread if self._unread < size else size
            try:
                found: bytes = self._openssl.read(asked)
            except ssl.SSLWantReadError:  # the record held no data
                self._unread = 0
                continue
            except ssl.SSLZeroReturnError:  # close_notify, after this side has sent its own
                found = b""
            if not found:
                self.close_notify_received = True
            self._unread = self._in_bio.pending
            if not self._unread and len(found) == asked:
                self._unread = self.tls.pending()
            return found
        return None

    def _decrypt_more(self, size: int, found: bytes) -> bytes:
        """Add to `found` the records behind it, up to `size` bytes in all; the lock is held.

        What breaks TLS there is raised when these have been read.
        """
        parts = [found]
        left = size - len(found)
        try:
            while left > 0 and (part := self._decrypt(left)):
                parts.append(part)
                left -= len(part)
        except ssl.SSLError as error:
            self._deferred = error.with_traceback(None)
            self.broken = True
        return b"".join(parts)

    def _feed_openssl(self) -> bool:
        """Give OpenSSL the next records; True if they are whole, False if there are none.

        A record that has begun is completed alone: what OpenSSL keeps depends on it (see `_FEED`).
        """
        buffer, start = self._buffer, self._start
        size = len(buffer)
        if not size:
            return False
        end = start + self._missing if self._missing else self._find_end()
        if end == start:
            return False
        if end < size:
            self._in_bio.write(memoryview(buffer)[start:end])
            self._start = end
        else:
            self._in_bio.write(memoryview(buffer)[start:] if start else buffer)
            self._buffer, self._start = b"", 0
        if end > size:
            self._missing = end - size
            return False
        self._missing = 0
        self._unread = self._in_bio.pending
        return True

    def _find_end(self) -> int:
        """The end of the whole records to feed next, or of one that has only begun.

        OpenSSL raises an exception at half a record, which costs as much as a quarter of a record's
        decryption: so it gets whole ones. What is not a record it gets too, in order to refuse it.
        """
        buffer, start = self._buffer, self._start
        size = len(buffer)
        end = start
        while size - end >= _HEADER.size:
            content_type, major, length = _HEADER.unpack_from(buffer, end)
            if content_type not in _CONTENT_TYPES or major != 3 or length > _LONGEST:
                return size
            stop = end + _HEADER.size + length
            if end > start and (stop > size or stop - start > _FEED):
                return end
            end = stop
        return end

    # --- writing ---------------------------------------------------------------------------------

    def write(self, plaintext: "bytes | memoryview") -> bytes:
        """Encrypt all of `plaintext`; return the ciphertext, behind any other output.

        Errors: BrokenPipeError after the end of this side.
        """
        size = len(plaintext)
        with self._lock:
            if self.close_notify_sent or self.broken:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            if size <= RECORD:
                if size:
                    self._openssl.write(plaintext)
                return self._out_bio.read()
            parts = []
            for start in range(0, size, RECORD):
                self._openssl.write(plaintext[start : start + RECORD])
                parts.append(self._out_bio.read())
        return b"".join(parts)

    def write_close_notify(self) -> None:
        """Put close_notify into the output, unless TLS is broken; this is the end of writing."""
        with self._lock:
            if self.close_notify_sent:
                return
            # SSL_shutdown fails on unread data: it is read ahead before.
            self._decrypt_ahead()
            if self.broken:
                return
            try:
                self.tls.unwrap()
            except ssl.SSLWantReadError:
                pass  # the peer has not ended its side yet
            self.close_notify_sent = True
