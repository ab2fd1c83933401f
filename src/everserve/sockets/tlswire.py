"""What a `TLSSocket` is made of below its plain text: OpenSSL on memory, ciphertext in and out.

All waiting is done here, by the inner socket's own `recv` and `send`, so that whatever these block,
a thread or a fiber, is what TLS blocks.
"""

import _socket
import enum
import errno
import os
import socket
import ssl
import struct
import sys
import threading
from time import monotonic
from types import TracebackType
from typing import Any, NoReturn, Protocol

from everserve.sockets.tlsfacts import TLSFacts

__all__ = [
    "BATCH",
    "PIECE",
    "RECORD",
    "Half",
    "TLSWire",
    "Turn",
    "closed_error",
    "ragged_error",
    "want_read",
]

RECORD = 16_384
"""Bytes of plain text that one record holds at most (RFC 8446, section 5.1)."""

PIECE = 65_536
"""Bytes of ciphertext asked of the inner socket at once."""

BATCH = 4 * RECORD
"""Bytes of plain text sealed before they are sent: bounds what a peer that does not read costs."""

_MEAL = RECORD + 256
"""Bytes of ciphertext given to OpenSSL at once, unless one record is longer: what its memory has ever
held, and a third more, it keeps for as long as the connection lives."""

_LONGEST = RECORD + 2048
"""Bytes of ciphertext in a record of TLS 1.2; in 1.3 less (RFC 5246, 6.2.3; RFC 8446, 5.2)."""

_NON_BLOCKING = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK
_HEAD = struct.Struct(">BBxH")
_KINDS = range(20, 25)


class Turn(Protocol):
    """Who may send; a `threading.Lock` is one."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> bool: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


class Half(enum.Enum):
    """What may be done in one direction."""

    FRESH = "nothing before the handshake"
    OPEN = "data flows"
    ENDED = "close_notify has gone this way (RFC 8446, section 6.1)"
    BROKEN = "what came was no TLS, and nothing more can be read"
    CLOSED = "the socket is closed"


class TLSWire(TLSFacts):
    """The state of a TLS connection, and its ciphertext. Users meet it as `TLSSocket`."""

    __slots__ = (
        "_at",
        "_early",
        "_fault",
        "_held",
        "_incoming",
        "_lock",
        "_more",
        "_outgoing",
        "_owed",
        "_reads",
        "_records",
        "_short",
        "_turn",
        "_unsent",
        "_writes",
        "truncated",
    )

    truncated: bool
    """Whether the stream ended without the peer's close_notify: anybody may have cut it."""

    def __init__(
        self,
        inner: socket.socket,
        context: ssl.SSLContext,
        server_side: bool,
        server_hostname: str | None,
        session: ssl.SSLSession | None,
        turn: Turn | None,
    ) -> None:
        super().__init__(inner)
        self.server_side = server_side
        self._context = context
        self._asked_name = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side, server_hostname, session
        )
        # `SSLObject` only passes reads and writes on to this; to go past it saves an echo two calls.
        self._records: Any = getattr(self._tls, "_sslobj", self._tls)
        self._lock = threading.Lock()  # held for OpenSSL alone, never while something waits
        self._turn: Turn = threading.Lock() if turn is None else turn
        self._reads = self._writes = Half.FRESH
        self.truncated = False
        self._early = b""  # plain text that was read before somebody asked for it
        self._held = b""  # ciphertext that OpenSSL has not been given,
        self._at = 0  # from here on
        self._short = 0  # bytes that a record lacks whose beginning OpenSSL has been given
        self._more = 0  # bytes that OpenSSL may have to read, or fewer; 0: none
        self._fault: ssl.SSLError | None = None  # met behind data, which is told of first
        self._unsent: bytes | memoryview = b""  # ciphertext that has to go before any other
        self._owed = 0  # plain text of `send` that is sealed, but not yet counted as sent

    # --- ciphertext ----------------------------------------------------------------------------

    def _fetch(self, limit: float | None = None) -> bytes:
        """Wait for ciphertext, until the moment `limit`; b"" at the connection's end."""
        if limit is not None:
            self._within(limit)
        try:
            return self._inner.recv(PIECE)
        except BlockingIOError:
            raise want_read() from None

    def _hold(self, sealed: bytes) -> None:
        """Keep what has come for `_feed`; one record alone needs no more looking at."""
        size = len(sealed)
        if self._held:
            self._held = self._held[self._at :] + sealed
            self._at = 0
        elif size >= 5 and size == 5 + (sealed[3] << 8 | sealed[4]) and not self._short:
            self._incoming.write(sealed)
            self._more = size
        else:
            self._held = sealed

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
            self._incoming.write(memoryview(held)[start:end])
            self._at = end
        else:
            self._incoming.write(memoryview(held)[start:] if start else held)
            self._held, self._at = b"", 0
        if end > size:
            self._short = end - size
            return False
        self._short = 0
        self._more = self._incoming.pending
        return True

    def _seal(self, plain: "bytes | memoryview") -> bytes:
        """Encrypt all of `plain`; with it comes what OpenSSL has to say besides."""
        size = len(plain)
        with self._lock:
            if size <= RECORD:
                if size:
                    self._records.write(plain)
                return self._outgoing.read()
            parts = []
            for start in range(0, size, RECORD):
                self._records.write(plain[start : start + RECORD])
                parts.append(self._outgoing.read())
        return b"".join(parts)

    def _send(self, sealed: bytes) -> None:
        """Send `sealed`; what an error keeps from going stays, so that no record is torn."""
        self._unsent = sealed
        try:
            sent = self._inner.send(sealed)
        except BlockingIOError:
            raise _want_write() from None
        if sent == len(sealed):
            self._unsent = b""
        else:
            self._unsent = memoryview(sealed)[sent:]
            self._ship()

    def _ship(self, limit: float | None = None, *, at_once: bool = False) -> None:
        """Send all that is sealed, until the moment `limit`; the turn is held."""
        send = self._send_now if at_once else self._inner.send
        while self._unsent or self._outgoing.pending:
            if not self._unsent:
                with self._lock:
                    self._unsent = self._outgoing.read()
            if limit is not None:
                self._within(limit)
            try:
                sent = send(self._unsent)
            except BlockingIOError:
                raise _want_write() from None
            self._unsent = memoryview(self._unsent)[sent:] if sent < len(self._unsent) else b""

    def _ship_at_once(self) -> None:
        """Send what the kernel takes now of what is sealed; the rest goes with the next data.

        For alerts and the like, those of the reading side too: a reader must wait neither for a
        peer that does not read, nor for whoever has the turn, who sends them as well.
        """
        if not self._turn.acquire(False):
            return
        try:
            self._try_to_ship()
        finally:
            self._turn.release()

    def _try_to_ship(self) -> None:
        """As `_ship_at_once`, by who has the turn."""
        try:
            self._ship(at_once=True)
        except OSError:
            pass  # the connection's end is told by what was asked for, not by this

    def _send_now(self, sealed: "bytes | memoryview") -> int:
        """A send(2) that never waits.

        By another object for the same descriptor, as the inner's time limit may be in use by
        somebody who reads at this moment. Of no family, as send(2) asks for none.
        """
        fd = self._inner.fileno()
        if fd < 0:
            raise closed_error()
        twin = _socket.socket(_socket.AF_UNSPEC, _NON_BLOCKING, 0, fd)
        try:
            return twin.send(sealed, _socket.MSG_DONTWAIT)
        finally:
            twin.detach()

    # --- plain text ----------------------------------------------------------------------------

    def _open(self, size: int) -> bytes | None:
        """Let OpenSSL read one record, with the lock held: its first `size` bytes.

        None when more has to come first. What comes out empty is the peer's close_notify.
        """
        while self._more or self._feed():
            asked = self._more if self._more < size else size  # room for no more than may come
            try:
                found: bytes = self._records.read(asked)
            except ssl.SSLWantReadError:  # there was no data in it
                self._more = 0
                continue
            except ssl.SSLZeroReturnError:  # as b"" is told once this side has ended too
                found = b""
            if not found:
                self._reads = Half.ENDED
            self._more = self._incoming.pending
            if not self._more and len(found) == asked:
                self._more = self._tls.pending()
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
            self._reads, self._writes = Half.BROKEN, Half.ENDED
        return b"".join(parts)

    def _open_early(self) -> None:
        """Read all that is here, before somebody asks for it; the lock is held."""
        if self._reads is Half.OPEN:
            self._early = self._open_more(sys.maxsize, self._early)

    def _take_early(self, size: int) -> bytes:
        found, self._early = self._early[:size], self._early[size:]
        return found

    def _raise_fault(self) -> NoReturn:
        fault, self._fault = self._fault, None
        raise fault or ssl.SSLError(ssl.SSL_ERROR_SSL, "the stream was broken before")

    # --- time ----------------------------------------------------------------------------------

    def _within(self, limit: float) -> None:
        """Let the next wait end at the moment `limit`."""
        left = limit - monotonic()
        if left <= 0.0:
            raise TimeoutError("timed out")
        self._inner.settimeout(left)

    def _restore(self, timeout: float | None) -> None:
        try:
            self._inner.settimeout(timeout)
        except OSError:
            pass  # its owner has closed it meanwhile

    def _until(self, limit: float | None) -> float:
        """The moment by which a record that has begun must be there."""
        if limit is None:
            timeout = self._inner.gettimeout()
            return monotonic() + timeout if timeout else float("inf")
        if monotonic() > limit:
            raise TimeoutError("timed out")
        return limit


def closed_error() -> OSError:
    return OSError(errno.EBADF, os.strerror(errno.EBADF))


def ragged_error(told: str) -> ssl.SSLEOFError:
    return ssl.SSLEOFError(ssl.SSL_ERROR_EOF, f"EOF occurred in violation of protocol: {told}")


def want_read() -> ssl.SSLWantReadError:
    return ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "The operation did not complete (read)")


def _want_write() -> ssl.SSLWantWriteError:
    return ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "The operation did not complete (write)")
