"""The handshake of a `TLSSocket`: the first thing that happens, where the request runs.

It may wait for long, and for nothing: whoever calls it sets a limit of time.
"""

import socket
import ssl
from time import monotonic

from everserve.sockets.tls.hello import HelloReader, UnreadableName
from everserve.sockets.tls.records import Records
from everserve.sockets.tls.wire import Phase, TLSWire, Turn

__all__ = ["TLSHandshake"]

_UNRECOGNIZED_NAME = b"\x15\x03\x03\x00\x02\x02\x70"
"""A fatal alert (RFC 8446, section 6.2), as it travels before there are keys."""


class TLSHandshake(TLSWire):
    """Agrees with the peer. Users meet it as `TLSSocket`."""

    __slots__ = ("_hello", "_initial")

    _initial: bytes

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
        super().__init__(inner, context, server_side, server_hostname, session, turn, records)
        self._initial = b""
        self._hello = HelloReader() if server_side else None

    def do_handshake(self, block: bool = False) -> None:
        """Agree with the peer; the socket's time limit is for the whole. Nothing when it is done.

        `block` lets a non-blocking socket wait for as long as it takes.

        Errors: `ssl.SSLCertVerificationError`, `ssl.SSLEOFError` (the peer went away), another
        `ssl.SSLError`; TimeoutError; `ssl.SSLWantReadError`, `ssl.SSLWantWriteError`: call again.
        """
        if self._phase is not Phase.FRESH:
            return
        with self._turn:  # who comes second finds it done
            if self._phase is Phase.FRESH:
                timeout = self._inner.gettimeout()
                if timeout is None or (timeout == 0.0 and not block):
                    self._shake(None)
                else:
                    self._shake_within(timeout)

    def _shake_within(self, timeout: float) -> None:
        """With a limit for the whole; 0.0: none, although the socket does not block."""
        try:
            if timeout == 0.0:
                self._inner.settimeout(None)
            self._shake(monotonic() + timeout if timeout else None)
        finally:
            self._restore(timeout)

    def _shake(self, limit: float | None) -> None:
        initial, self._initial = self._initial, b""
        if initial:
            self._take_in(initial)
        try:
            while not self._records.agree():
                self._ship(limit)
                self._take_in(self._fetch(limit, told="the peer went away in the handshake"))
        except ssl.SSLError:
            self._try_to_ship()  # the alert
            raise
        # Where the peer's first data came with the end of its handshake, the tickets leave with
        # what answers it: a system call less, and a segment.
        if not self._records.holding:
            self._ship(limit)
        self._phase = Phase.OPEN

    def _take_in(self, sealed: bytes) -> None:
        """Keep what has come for OpenSSL, once the first flight is known to be readable."""
        if self._hello is not None:
            try:
                sealed = self._hello.feed(sealed)
            except UnreadableName as error:
                self._unsent = _UNRECOGNIZED_NAME
                self._try_to_ship()
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, str(error)) from None
            if self._hello.done:
                self._asked_name = self._hello.name
                self._hello = None
        self._records.hold(sealed)
