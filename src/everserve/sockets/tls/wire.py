"""What a `TLSSocket` is made of below its plain text: how ciphertext travels.

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
from typing import Protocol

from everserve.sockets.tls.facts import TLSFacts
from everserve.sockets.tls.records import RECORD, Records

__all__ = [
    "BATCH",
    "CUT",
    "PIECE",
    "Phase",
    "TLSWire",
    "Turn",
    "closed_error",
    "ragged_error",
    "want_read",
]

PIECE = 98_304
"""Bytes of ciphertext asked of the inner socket at once."""

BATCH = 6 * RECORD
"""Bytes of plain text sealed before they are sent: bounds what a peer that does not read costs."""

CUT = "the stream ends without close_notify"

_MORE = getattr(_socket, "MSG_MORE", 0)
_NON_BLOCKING = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK


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


class Phase(enum.Enum):
    """How far the connection is."""

    FRESH = "nothing before the handshake"
    OPEN = "data flows, until one side ends"
    CLOSED = "the socket is closed, or no longer TLS"


class TLSWire(TLSFacts):
    """The state of a TLS connection, and its ciphertext on the way. Users meet it as `TLSSocket`."""

    __slots__ = ("_owed", "_phase", "_records", "_turn", "_unsent", "truncated")

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
        records: type[Records],
    ) -> None:
        super().__init__(inner)
        self.server_side = server_side
        self._context = context
        self._asked_name = None
        self._records = records(context, server_side, server_hostname, session)
        self._tls = self._records.tls
        self._turn: Turn = threading.Lock() if turn is None else turn
        self._phase = Phase.FRESH
        self.truncated = False
        self._unsent: bytes | memoryview = b""  # ciphertext that has to go before any other
        self._owed = 0  # plain text of `send` that is sealed, but not yet counted as sent

    # --- ciphertext ----------------------------------------------------------------------------

    def _fetch(self, limit: float | None = None, *, told: str = CUT) -> bytes:
        """Wait for ciphertext, until the moment `limit`; at the connection's end raise `told`."""
        if limit is not None:
            self._within(limit)
        try:
            sealed = self._inner.recv(PIECE)
        except BlockingIOError:
            raise want_read() from None
        if not sealed:
            self.truncated = True
            raise ragged_error(told)
        return sealed

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

    def _ship(
        self, limit: float | None = None, *, at_once: bool = False, last: bool = False
    ) -> None:
        """Send all that is sealed, until the moment `limit`; the turn is held."""
        while self._unsent or self._records.speaking:
            if not self._unsent:
                self._unsent = self._records.outgoing()
            if limit is not None:
                self._within(limit)
            try:
                unsent = self._unsent
                sent = self._send_now(unsent, last) if at_once else self._inner.send(unsent)
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

    def _send_now(self, sealed: "bytes | memoryview", last: bool = False) -> int:
        """A send(2) that never waits. What is `last` leaves with the end of the stream.

        By another object for the same descriptor, as the inner's time limit may be in use by
        somebody who reads at this moment. Of no family, as send(2) asks for none.
        """
        fd = self._inner.fileno()
        if fd < 0:
            raise closed_error()
        twin = _socket.socket(_socket.AF_UNSPEC, _NON_BLOCKING, 0, fd)
        try:
            return twin.send(sealed, _socket.MSG_DONTWAIT | (_MORE if last else 0))
        finally:
            twin.detach()

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


def closed_error() -> OSError:
    return OSError(errno.EBADF, os.strerror(errno.EBADF))


def ragged_error(told: str) -> ssl.SSLEOFError:
    return ssl.SSLEOFError(ssl.SSL_ERROR_EOF, f"EOF occurred in violation of protocol: {told}")


def want_read() -> ssl.SSLWantReadError:
    return ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "The operation did not complete (read)")


def _want_write() -> ssl.SSLWantWriteError:
    return ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "The operation did not complete (write)")
