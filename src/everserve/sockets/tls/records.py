"""The record layer of TLS: ciphertext in, plain text out, and back, by OpenSSL on memory.

It waits for nothing and touches no socket: `wire` brings and takes the bytes. `_records.pyx` is
the same, compiled.
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
"""Bytes of plain text that one record holds at most (RFC 8446, section 5.1)."""

_MEAL = RECORD + 256
"""Bytes of ciphertext given to OpenSSL at once, unless one record is longer: what its memory has ever
held, and a third more, it keeps for as long as the connection lives."""

_LONGEST = RECORD + 2048
"""Bytes of ciphertext in a record of TLS 1.2; in 1.3 less (RFC 5246, 6.2.3; RFC 8446, 5.2)."""

_HEAD = struct.Struct(">BBxH")
_KINDS = range(20, 25)


class Records:
    """One connection's records. One thread may read while others write; who writes has the turn."""

    __slots__ = (
        "_at",
        "_early",
        "_fault",
        "_held",
        "_in_bio",
        "_listens",
        "_lock",
        "_more",
        "_openssl",
        "_out_bio",
        "_short",
        "broken",
        "ended",
        "said",
        "tls",
    )

    tls: ssl.SSLObject
    """What OpenSSL is asked for facts by."""

    ended: bool
    """Whether the peer has said close_notify (RFC 8446, section 6.1)."""

    said: bool
    """Whether close_notify has gone the other way."""

    broken: bool
    """Whether the peer has sent what is no TLS, or not by the keys: nothing more can be read."""

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
        # `SSLObject` only passes reads and writes on to this; to go past it saves an echo two calls.
        self._openssl: Any = getattr(self.tls, "_sslobj", self.tls)
        self._lock = threading.Lock()  # held for OpenSSL alone
        self._listens = server_side  # whether the peer has to say something first
        self.ended = self.said = self.broken = False
        self._early = b""  # plain text that was read before somebody asked for it
        self._held = b""  # ciphertext that OpenSSL has not been given,
        self._at = 0  # from here on
        self._short = 0  # bytes that a record lacks whose beginning OpenSSL has been given
        self._more = 0  # bytes that OpenSSL may have to read, or fewer; 0: none
        self._fault: ssl.SSLError | None = None  # met behind data, which is told of first

    # --- the handshake -------------------------------------------------------------------------

    def agree(self) -> bool:
        """Go on with the handshake as far as what is here allows; True when it is done.

        To ask OpenSSL when nothing has come costs an exception: 8 us of the handshake's 450.
        """
        while not self._listens or self._more or self._feed():
            self._listens = False
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._listens, self._more = True, 0
                continue
            self._more = self._in_bio.pending
            return True
        return False

    # --- what is here ----------------------------------------------------------------------------

    @property
    def holding(self) -> bool:
        """Whether there is anything that `read` has to look at before more ciphertext comes."""
        begun = self._more or self._short or self._held
        return bool(begun or self._early or self.ended or self.broken)

    @property
    def speaking(self) -> bool:
        """Whether there is ciphertext for the peer: an answer, an alert."""
        return self._out_bio.pending > 0

    @property
    def locked(self) -> bool:
        """Whether somebody is inside of OpenSSL: another thread, or who a signal has interrupted."""
        return self._lock.locked()

    def hold(self, sealed: bytes) -> None:
        """Keep what has come; one record alone needs no more looking at."""
        size = len(sealed)
        if self._held:
            self._held = self._held[self._at :] + sealed
            self._at = 0
        elif size >= 5 and size == 5 + (sealed[3] << 8 | sealed[4]) and not self._short:
            self._in_bio.write(sealed)
            self._more = size
        else:
            self._held = sealed

    def surplus(self) -> bytes:
        """After the end of TLS: what came in clear behind it, once."""
        held, self._held = self._held[self._at :], b""
        return self._in_bio.read() + held

    # --- reading ---------------------------------------------------------------------------------

    def read(self, sealed: bytes, size: int) -> bytes | None:
        """The first `size` bytes of what is here with `sealed`, of as many records as there are.

        None when the rest of a record has to come first; b"" at the stream's end. What breaks TLS
        is raised behind all that came before it, and again by each call that follows.

        Errors: `ssl.SSLError`; the alert for the peer waits in `outgoing`.
        """
        with self._lock:
            if sealed:
                self.hold(sealed)
            if self._early:
                return self._take_early(size)
            if self.ended:
                return b""
            if self.broken:
                fault, self._fault = self._fault, None
                raise fault or ssl.SSLError(ssl.SSL_ERROR_SSL, "the stream was broken before")
            try:
                found = self._open(size)
            except ssl.SSLError:
                self.broken = True
                raise
            if (self._more or self._held) and found:
                found = self._open_more(size, found)
            return found

    def read_early(self, sealed: bytes = b"") -> int:
        """Read all that is here with `sealed`, before somebody asks for it; the bytes so read."""
        with self._lock:
            if sealed:
                self.hold(sealed)
            self._open_early()
        return len(self._early)

    def forget_early(self) -> None:
        """What was read so is of no use to anybody."""
        self._early = b""

    def raise_fault(self) -> None:
        """Raise what broke TLS behind what was read early, if anything did."""
        if self._fault is not None:
            raise self._fault

    def _open_early(self) -> None:
        if not self.ended and not self.broken:
            self._early = self._open_more(sys.maxsize, self._early)

    def _take_early(self, size: int) -> bytes:
        found, self._early = self._early[:size], self._early[size:]
        return found

    def _open(self, size: int) -> bytes | None:
        """Let OpenSSL read one record: its first `size` bytes; the lock is held.

        None when more has to come first. What comes out empty is the peer's close_notify.
        """
        while self._more or self._feed():
            asked = self._more if self._more < size else size  # room for no more than may come
            try:
                found: bytes = self._openssl.read(asked)
            except ssl.SSLWantReadError:  # there was no data in it
                self._more = 0
                continue
            except ssl.SSLZeroReturnError:  # as b"" is told once this side has ended too
                found = b""
            if not found:
                self.ended = True
            self._more = self._in_bio.pending
            if not self._more and len(found) == asked:
                self._more = self.tls.pending()
            return found
        return None

    def _open_more(self, size: int, found: bytes) -> bytes:
        """`found`, and what is here behind it: `size` bytes together at most; the lock is held.

        What breaks TLS there is told when these have been read.
        """
        parts = [found]
        left = size - len(found)
        try:
            while left > 0 and (part := self._open(left)):
                parts.append(part)
                left -= len(part)
        except ssl.SSLError as error:
            self._fault = error.with_traceback(None)
            self.broken = True
        return b"".join(parts)

    def _feed(self) -> bool:
        """Give OpenSSL the next whole records, if there are any; of one that is not, the beginning.

        It is told of whole ones only, as the exception that it raises at half a record costs as
        much as to decrypt a quarter of one; and not of many, see `_MEAL`. What is no record is its
        to refuse.
        """
        held, start = self._held, self._at
        size = len(held)
        if not size:
            return False
        end = start + self._short  # a record that has begun is completed alone, see `_MEAL`
        while size - end >= _HEAD.size and not self._short:
            kind, major, length = _HEAD.unpack_from(held, end)
            if kind not in _KINDS or major != 3 or length > _LONGEST:
                end = size
                break
            stop = end + _HEAD.size + length
            if end > start and (stop > size or stop - start > _MEAL):
                break
            end = stop
        if end == start:
            return False
        if end < size:
            self._in_bio.write(memoryview(held)[start:end])
            self._at = end
        else:
            self._in_bio.write(memoryview(held)[start:] if start else held)
            self._held, self._at = b"", 0
        if end > size:
            self._short = end - size
            return False
        self._short = 0
        self._more = self._in_bio.pending
        return True

    # --- writing ---------------------------------------------------------------------------------

    def write(self, plain: "bytes | memoryview") -> bytes:
        """All of `plain` as ciphertext; before it comes what OpenSSL has to say besides.

        Errors: BrokenPipeError after the end of this side.
        """
        size = len(plain)
        with self._lock:
            if self.said or self.broken:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            if size <= RECORD:
                if size:
                    self._openssl.write(plain)
                return self._out_bio.read()
            parts = []
            for start in range(0, size, RECORD):
                self._openssl.write(plain[start : start + RECORD])
                parts.append(self._out_bio.read())
        return b"".join(parts)

    def outgoing(self) -> bytes:
        """The ciphertext that waits for the peer, once."""
        with self._lock:
            return self._out_bio.read()

    def say_goodbye(self) -> None:
        """Put close_notify into `outgoing`, unless TLS is broken; that is the end of writing."""
        with self._lock:
            if self.said:
                return
            # SSL_shutdown breaks on data that it meets: what is here is read before.
            self._open_early()
            if self.broken:
                return
            try:
                self.tls.unwrap()
            except ssl.SSLWantReadError:
                pass  # the peer has not ended its side yet
            self.said = True
