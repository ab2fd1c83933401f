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
import threading
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from everserve.sockets.tlsfacts import TLSFacts

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

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
        "_held",
        "_incoming",
        "_lock",
        "_more",
        "_outgoing",
        "_owed",
        "_reads",
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
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side, server_hostname, session
        )
        self._lock = threading.Lock()  # held for OpenSSL alone, never while something waits
        self._turn: Turn = threading.Lock() if turn is None else turn
        self._reads = self._writes = Half.FRESH
        self.truncated = False
        self._early = b""  # plain text that was read before somebody asked for it
        self._held = b""  # ciphertext that OpenSSL has not been given,
        self._at = 0  # from here on
        self._more = False  # whether OpenSSL may have something to read
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
        if self._held:
            self._held = self._held[self._at :] + sealed
            self._at = 0
        elif len(sealed) >= 5 and len(sealed) == 5 + (sealed[3] << 8 | sealed[4]):
            self._incoming.write(sealed)
            self._more = True
        else:
            self._held = sealed

    def _feed(self) -> bool:
        """Give OpenSSL the next whole records, if there are any.

        Whole ones only, as the exception that it raises at half a record costs as much as to
        decrypt a quarter of one; and not many, see `_MEAL`. What is no record is its to refuse.
        """
        held, start = self._held, self._at
        end, size = start, len(held)
        while size - end >= _HEAD.size:
            kind, major, length = _HEAD.unpack_from(held, end)
            if kind not in _KINDS or major != 3 or length > _LONGEST:
                end = size
                break
            stop = end + _HEAD.size + length
            if stop > size or (stop - start > _MEAL and end > start):
                break
            end = stop
        if end == start:
            return False
        if end == size:
            self._incoming.write(memoryview(held)[start:] if start else held)
            self._held, self._at = b"", 0
        else:
            self._incoming.write(memoryview(held)[start:end])
            self._at = end
        self._more = True
        return True

    def _seal(self, plain: "bytes | memoryview") -> bytes:
        """Encrypt all of `plain`; with it comes what OpenSSL has to say besides."""
        size = len(plain)
        with self._lock:
            if size <= RECORD:
                if size:
                    self._tls.write(plain)
                return self._outgoing.read()
            parts = []
            for start in range(0, size, RECORD):
                self._tls.write(plain[start : start + RECORD])
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
        while True:
            if not self._unsent:
                with self._lock:
                    self._unsent = self._outgoing.read()
                if not self._unsent:
                    return
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
        somebody who reads at this moment.
        """
        inner = self._inner
        fd = inner.fileno()
        if fd < 0:
            raise closed_error()
        twin = _socket.socket(inner.family, inner.type | socket.SOCK_NONBLOCK, inner.proto, fd)
        try:
            return twin.send(sealed, socket.MSG_DONTWAIT)
        finally:
            twin.detach()

    # --- plain text ----------------------------------------------------------------------------

    def _open(self, size: int, buffer: "WriteableBuffer | None") -> Any:
        """Let OpenSSL read, with the lock held: bytes, or how many are in `buffer`.

        None when more has to come first. What comes out empty is the peer's close_notify.
        """
        while self._more or self._feed():
            try:
                # A `buffer` of None means a new bytes object.
                found: Any = self._tls.read(size, buffer)
            except ssl.SSLWantReadError:  # there was no data in it
                self._more = False
                continue
            except ssl.SSLZeroReturnError:  # as b"" is told once this side has ended too
                found = b"" if buffer is None else 0
            count = len(found) if buffer is None else found
            if not count:
                self._reads = Half.ENDED
            self._more = self._incoming.pending > 0 or (count == size and self._tls.pending() > 0)
            return found
        return None

    def _open_early(self) -> None:
        """Read all that is here, before somebody asks for it; the lock is held."""
        parts = [self._early]
        while self._reads is Half.OPEN:
            part = self._open(RECORD, None)
            if part is None:
                break
            parts.append(part)
        self._early = b"".join(parts)

    def _take_early(self, size: int, buffer: "WriteableBuffer | None") -> Any:
        found, self._early = self._early[:size], self._early[size:]
        if buffer is None:
            return found
        with memoryview(buffer) as view, view.cast("B") as room:
            room[: len(found)] = found
        return len(found)

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
