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
import threading
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from everserve.sockets.tlsfacts import TLSFacts

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["BATCH", "RECORD", "Half", "TLSWire", "Turn", "closed_error", "ragged_error"]

RECORD = 16_384
"""Bytes of plain text that one record holds at most (RFC 8446, section 5.1)."""

PIECE = 32_768
"""Bytes of ciphertext asked of the inner socket at once. OpenSSL's memory keeps a third more than the
longest piece for as long as the connection lives."""

BATCH = 4 * RECORD
"""Bytes of plain text sealed before they are sent: bounds what a peer that does not read costs."""


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
    CLOSED = "the socket is closed"


class TLSWire(TLSFacts):
    """The state of a TLS connection, and its ciphertext. Users meet it as `TLSSocket`."""

    __slots__ = (
        "_early",
        "_incoming",
        "_lock",
        "_more",
        "_outgoing",
        "_owed",
        "_reads",
        "_turn",
        "_unsent",
        "_writes",
    )

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
        self._early = b""  # plain text that was read before somebody asked for it
        self._more = False  # whether reading may succeed without the inner socket
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
            raise ssl.SSLWantReadError(
                ssl.SSL_ERROR_WANT_READ, "The operation did not complete (read)"
            ) from None

    def _seal(self, plain: "bytes | memoryview") -> bytes:
        """Encrypt all of `plain`; with it comes what OpenSSL has to say besides."""
        size = len(plain)
        with self._lock:
            done = self._tls.write(plain) if size else 0
            while done < size:
                done += self._tls.write(plain[done:])
            return self._outgoing.read()

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
            self._ship(at_once=True)
        except OSError:
            pass  # the connection's end is told by what was asked for, not by this
        finally:
            self._turn.release()

    def _send_now(self, sealed: "bytes | memoryview") -> int:
        """A send(2) that never waits.

        By another object for the same descriptor, as the inner's time limit may be in use by
        somebody who reads at this moment.
        """
        inner = self._inner
        twin = _socket.socket(
            inner.family, inner.type | socket.SOCK_NONBLOCK, inner.proto, inner.fileno()
        )
        try:
            return twin.send(sealed, socket.MSG_DONTWAIT)
        finally:
            twin.detach()

    # --- plain text ----------------------------------------------------------------------------

    def _open(self, size: int, buffer: "WriteableBuffer | None") -> Any:
        """Let OpenSSL read, with the lock held: bytes, or how many are in `buffer`.

        None when it wants more of the wire. What comes out empty is the peer's close_notify.
        """
        try:
            # A `buffer` of None means a new bytes object.
            found: Any = self._tls.read(size, buffer)
        except ssl.SSLWantReadError:
            self._more = False
            return None
        except ssl.SSLZeroReturnError:  # as b"" is told once this side has ended too
            found = b"" if buffer is None else 0
        count = len(found) if buffer is None else found
        if not count:
            self._reads = Half.ENDED
        # To ask is cheaper than to provoke SSLWantReadError.
        self._more = self._incoming.pending > 0 or (count == size and self._tls.pending() > 0)
        return found

    def _open_early(self) -> None:
        """Read all that is here, before somebody asks for it; the lock is held."""
        parts = [self._early]
        while self._more and self._reads is Half.OPEN:
            parts.append(self._open(RECORD, None) or b"")
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


def _want_write() -> ssl.SSLWantWriteError:
    return ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "The operation did not complete (write)")
