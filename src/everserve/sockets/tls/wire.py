"""The wire of a TLS connection: it moves ciphertext between the socket below and the records.

A `TLSSocket` has one. All waiting is done here, by the `recv` and `send` of the socket below: what
these block, a thread or a fiber, TLS blocks.
"""

import socket
import ssl
import threading
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Protocol

from everserve.sockets.sending import send_now
from everserve.sockets.tls.records import RECORD, Records

__all__ = ["ANSWERS", "BATCH", "PIECE", "Lock", "Wire", "truncation_error"]

PIECE = 98_304
"""Bytes of ciphertext asked of the socket at once."""

BATCH = 6 * RECORD
"""Bytes of plaintext encrypted before they are sent: a bound for the ciphertext that waits."""

ANSWERS = 65_536
"""Bytes of answers to the peer, such as those to KeyUpdate, that may wait: then reading waits too."""


class Lock(Protocol):
    """What keeps writers apart, such as a `threading.Lock`."""

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


class Wire:
    """Ciphertext on its way in and out.

    *Threads*: one may receive while others send. A sender must hold `lock`; only `flush_if_unlocked`
    takes it.

    `initial` is ciphertext that was read from `inner` already; it is received first.
    """

    __slots__ = ("initial", "inner", "lock", "records", "truncated", "unsent")

    unsent: "bytes | memoryview"
    """Ciphertext that has to go before any other, as part of its record was sent."""

    truncated: bool
    """Whether the stream ended without the peer's close_notify: anyone may have cut it."""

    def __init__(
        self,
        inner: socket.socket,
        records: Records,
        lock: Lock | None = None,
        initial: bytes = b"",
    ) -> None:
        self.inner = inner
        self.records = records
        self.lock: Lock = threading.Lock() if lock is None else lock
        self.initial = initial
        self.unsent = b""
        self.truncated = False

    # --- in ------------------------------------------------------------------------------------

    def receive(self, limit: float | None = None) -> bytes:
        """Wait for ciphertext, until the monotonic time `limit`; b"" at the end of the connection.

        Errors: `ssl.SSLWantReadError` on a non-blocking socket; TimeoutError; OSError.
        """
        if self.initial:
            ciphertext, self.initial = self.initial, b""
            return ciphertext
        if limit is not None:
            self._set_limit(limit)
        try:
            ciphertext = self.inner.recv(PIECE)
        except BlockingIOError:
            raise _want_read() from None
        if not ciphertext:
            self.truncated = True
        return ciphertext

    # --- out -----------------------------------------------------------------------------------

    def send(self, ciphertext: bytes) -> None:
        """Send all of `ciphertext`. After an error the rest stays in `unsent`: no record is torn.

        Errors: `ssl.SSLWantWriteError` on a non-blocking socket; TimeoutError; OSError.
        """
        self.unsent = ciphertext
        try:
            sent = self.inner.send(ciphertext)
        except BlockingIOError:
            raise _want_write() from None
        if sent == len(ciphertext):
            self.unsent = b""
        else:
            self.unsent = memoryview(ciphertext)[sent:]
            self.flush()

    def flush(self, limit: float | None = None) -> None:
        """Send `unsent` and the output of the records, until the monotonic time `limit`.

        Errors: as of `send`.
        """

        def send_within(ciphertext: "bytes | memoryview") -> int:
            if limit is not None:
                self._set_limit(limit)
            return self.inner.send(ciphertext)

        self._flush(send_within)

    def flush_now(self, *, last: bool = False) -> None:
        """As `flush`, without waiting, whatever the socket's time limit. `last`: see `send_now`.

        Errors: `ssl.SSLWantWriteError` when the kernel has no room; OSError.
        """
        self._flush(lambda ciphertext: self.send_now(ciphertext, last))

    def try_flush(self) -> None:
        """Send what the kernel takes now; the rest goes with the next data. Raises nothing.

        For alerts and other answers of TLS: the end of the connection is reported by what needed it.
        """
        try:
            self.flush_now()
        except OSError:
            pass

    def answer(self) -> None:
        """Send what reading has left in the output, if anything, as far as the kernel takes it.

        Waits, as `flush` does, only while more than `ANSWERS` bytes wait already: a peer that asks
        and does not read would else cost memory without bound.
        """
        records = self.records
        if records.has_output:
            if records.output_size <= ANSWERS:
                self.flush_if_unlocked()
            else:
                with self.lock:
                    self.flush()

    def give_way(self) -> None:
        """Let others run, between two pieces of work. Threads need no help with that."""

    def flush_if_unlocked(self) -> None:
        """As `try_flush`, without the lock; a writer that holds it flushes anyway.

        For the reader, which must wait neither for a peer that does not read nor for a writer.
        """
        if not self.lock.acquire(False):
            return
        try:
            self.try_flush()
        finally:
            self.lock.release()

    def _flush(self, send: "Callable[[bytes | memoryview], int]") -> None:
        while self.unsent or self.records.has_output:
            if not self.unsent:
                self.unsent = self.records.take_output()
            try:
                sent = send(self.unsent)
            except BlockingIOError:
                raise _want_write() from None
            self.unsent = memoryview(self.unsent)[sent:] if sent < len(self.unsent) else b""

    def send_now(self, ciphertext: "bytes | memoryview", last: bool = False) -> int:
        """A send(2) that never waits; the compiled engine replaces it."""
        return send_now(self.inner, ciphertext, last=last)

    # --- time ----------------------------------------------------------------------------------

    def _set_limit(self, limit: float) -> None:
        """Let the next wait end at the monotonic time `limit`; `restore` undoes it."""
        left = limit - monotonic()
        if left <= 0.0:
            raise TimeoutError("timed out")
        self.inner.settimeout(left)

    def restore(self, timeout: float | None) -> None:
        """Set the socket's time limit back to `timeout`."""
        try:
            self.inner.settimeout(timeout)
        except OSError:
            pass  # its owner has closed it meanwhile


def truncation_error(message: str = "the stream ends without close_notify") -> ssl.SSLEOFError:
    return ssl.SSLEOFError(ssl.SSL_ERROR_EOF, f"EOF occurred in violation of protocol: {message}")


def _want_read() -> ssl.SSLWantReadError:
    return ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "The operation did not complete (read)")


def _want_write() -> ssl.SSLWantWriteError:
    return ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "The operation did not complete (write)")
