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

__all__ = ["DATALESS", "HOLD", "RECORD", "Records"]

RECORD = 16_384
"""The most bytes of plaintext in one record (RFC 8446, section 5.1)."""

DATALESS = 32
"""The most records in a row without data, such as KeyUpdate, that a peer may send."""

HOLD = 96
"""The most records that one call decrypts: some 0.1 ms. A thread or a fiber then gives way."""

_DATALESS_EFFORT = 12
"""Records with data that cost as much as one without: each KeyUpdate has new keys derived."""

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
        "_dataless",
        "_deferred",
        "_in_bio",
        "_lock",
        "_missing",
        "_openssl",
        "_out_bio",
        "_start",
        "_tls",
        "_unread",
        "_with",
        "broken",
        "close_notify_received",
        "close_notify_sent",
        "paused",
    )

    close_notify_received: bool
    """Whether the peer has ended its side (RFC 8446, section 6.1)."""

    close_notify_sent: bool
    """Whether this side has ended: its close_notify is in the output, or was."""

    broken: bool
    """Whether the peer has sent what is not TLS, or not encrypted with the keys: reading ends."""

    paused: bool
    """Whether the last call has stopped before the end of the input, to let others run: call again."""

    def __init__(
        self,
        context: ssl.SSLContext,
        server_side: bool,
        server_hostname: str | None,
        session: ssl.SSLSession | None,
    ) -> None:
        self._in_bio = ssl.MemoryBIO()
        self._out_bio = ssl.MemoryBIO()
        self._with = (context, server_side, server_hostname, session)
        self._tls: ssl.SSLObject | None = None
        self._openssl: Any = None
        self._lock = threading.Lock()  # held for each use of OpenSSL
        self._awaits_peer = server_side  # whether the handshake needs input first
        self.close_notify_received = self.close_notify_sent = self.broken = False
        self.paused = False
        self._ahead = b""  # plaintext that was read ahead
        self._buffer = b""  # ciphertext that OpenSSL has not been given,
        self._start = 0  # from this index on
        self._missing = 0  # bytes that a record lacks whose beginning OpenSSL has been given
        self._unread = 0  # an upper bound of the bytes that OpenSSL can read; 0: none
        self._dataless = 0  # records in a row without data
        self._deferred: ssl.SSLError | None = None  # met behind data; raised after that is read
        if not server_side:
            self._open()

    @property
    def tls(self) -> ssl.SSLObject:
        """Answers questions about the connection, as `cipher()` and `getpeercert()`."""
        return self._open() if self._tls is None else self._tls

    def _open(self) -> ssl.SSLObject:
        """Have OpenSSL's part made, which takes 10 KiB: a server's when its client has said hello."""
        context, server_side, server_hostname, session = self._with
        tls = context.wrap_bio(self._in_bio, self._out_bio, server_side, server_hostname, session)
        # `SSLObject` only passes reads and writes on to this. Without it an echo saves two calls.
        self._openssl = getattr(tls, "_sslobj", tls)
        self._tls = tls
        return tls

    # --- the handshake -------------------------------------------------------------------------

    def do_handshake(self) -> bool:
        """Advance the handshake as far as the input allows, or until `paused`; True when it is done.

        OpenSSL is not called without input, as that costs an exception: 8 us of a handshake's 450.
        """
        left = HOLD // _DATALESS_EFFORT
        self.paused = False
        while not self._awaits_peer or self._unread or self._feed_openssl():
            if left == 0:
                self.paused = True
                return False
            left -= 1
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
    def output_size(self) -> int:
        """Bytes of ciphertext for the peer that no `write` has returned."""
        return self._out_bio.pending

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
        elif (
            size >= 5
            and size == 5 + (ciphertext[3] << 8 | ciphertext[4])
            and not (self._missing or self._unread)
        ):
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
        """Feed `ciphertext`, then return up to `size` bytes of plaintext, of records received.

        None when the rest of a record is missing, or where it has `paused`; b"" at the end of the
        stream. What breaks TLS is raised after all data before it was read, and again by each later
        call.

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
            return self._decrypt(size)

    def read_ahead(self, ciphertext: bytes = b"") -> int:
        """Feed `ciphertext`, and decrypt records received for a later `read`; bytes so kept.

        There are more to decrypt where it has `paused`.
        """
        with self._lock:
            if ciphertext:
                self.feed(ciphertext)
            self._decrypt_ahead(HOLD)
        return len(self._ahead)

    def drop_ahead(self) -> None:
        """Drop what was read ahead."""
        self._ahead = b""

    def raise_deferred(self) -> None:
        """Raise what broke TLS behind the data that was read ahead, if anything did."""
        if self._deferred is not None:
            raise self._deferred

    def _decrypt_ahead(self, effort: int) -> None:
        self.paused = False
        if self.close_notify_received or self.broken:
            return
        try:
            self._ahead += self._decrypt(sys.maxsize, effort) or b""
        except ssl.SSLError as error:
            self._deferred = error.with_traceback(None)

    def _take_ahead(self, size: int) -> bytes:
        found, self._ahead = self._ahead[:size], self._ahead[size:]
        return found

    def _decrypt(self, size: int, effort: int = HOLD) -> bytes | None:
        """Decrypt up to `size` bytes of as many records as `effort` allows; the lock is held.

        None when more has to come first, or where it has `paused`. An empty result is the peer's
        close_notify. What breaks TLS behind data is raised when that has been read.
        """
        parts: list[bytes] = []
        self.paused = False
        while size > 0:
            if effort <= 0:
                self.paused = bool(self._unread or self._buffer)
                break
            if not self._unread and not self._feed_openssl():
                break
            try:
                found = self._decrypt_record(size)
            except ssl.SSLError as error:
                self.broken = True
                if not parts:
                    raise
                self._deferred = error.with_traceback(None)
                break
            if found is None:
                effort -= _DATALESS_EFFORT
                continue
            parts.append(found)
            if not found:
                break
            size -= len(found)
            effort -= 1
        return b"".join(parts) if parts else None

    def _decrypt_record(self, size: int) -> bytes | None:
        """Decrypt the record that OpenSSL has been given, up to `size` bytes; None: it has no data."""
        # OpenSSL allocates what it is asked for: do not ask for more than can be there.
        asked = self._unread if self._unread < size else size
        try:
            found: bytes = self._openssl.read(asked)
        except ssl.SSLWantReadError:
            self._unread = 0
            self._count_dataless()
            return None
        except ssl.SSLZeroReturnError:  # close_notify, after this side has sent its own
            found = b""
        if not found:
            self.close_notify_received = True
        self._dataless = 0
        self._unread = self._in_bio.pending
        if not self._unread and len(found) == asked:
            self._unread = self.tls.pending()
        return found

    def _count_dataless(self) -> None:
        self._dataless += 1
        if self._dataless > DATALESS:
            raise ssl.SSLError(
                ssl.SSL_ERROR_SSL, f"the peer sends more than {DATALESS} records without data"
            )

    def _feed_openssl(self) -> bool:
        """Give OpenSSL the next record; True if it is whole, False if there is none.

        One at a time: OpenSSL handles all records without data that it has in one call, and keeps as
        much memory as it has ever held at once.
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
        """The end of the record to feed next, which may have only begun.

        OpenSSL raises an exception at half a record, which costs as much as a quarter of a record's
        decryption: so it gets whole ones. What is not a record it gets too, in order to refuse it.
        """
        buffer, start = self._buffer, self._start
        size = len(buffer)
        if size - start < _HEADER.size:
            return start
        content_type, major, length = _HEADER.unpack_from(buffer, start)
        if content_type not in _CONTENT_TYPES or major != 3 or length > _LONGEST:
            return size
        return start + _HEADER.size + int(length)

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
            # SSL_shutdown fails on unread data of OpenSSL's: that is read ahead before.
            self._decrypt_ahead(HOLD)
            while self._unread and not self.close_notify_received and not self.broken:
                self._decrypt_ahead(1)
            if self.broken:
                return
            try:
                self.tls.unwrap()
            except ssl.SSLWantReadError:
                pass  # the peer has not ended its side yet
            self.close_notify_sent = True
