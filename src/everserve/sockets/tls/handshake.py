"""The handshake: the first thing on a TLS connection, done where the request runs.

It may wait long, and in vain: the caller sets a time limit.
"""

import ssl
from time import monotonic

from everserve.sockets.tls.hello import HelloError, HelloReader
from everserve.sockets.tls.wire import Wire, truncation_error

__all__ = ["do_handshake"]

_FATAL_ALERT = b"\x15\x03\x03\x00\x02\x02"
"""Before its description (RFC 8446, section 6.2); not encrypted, as there are no keys yet."""


def do_handshake(wire: Wire, hello: HelloReader | None, *, block: bool = False) -> None:
    """Do the handshake on `wire`, whose lock is held. The socket's time limit is for the whole.

    `hello` reads the client's first message; None on the client's side. `block` lets a non-blocking
    socket wait as long as it takes. After `ssl.SSLWantReadError` or `ssl.SSLWantWriteError` call
    again, with the same `hello`.

    Errors: `ssl.SSLCertVerificationError`; `ssl.SSLEOFError` when the peer has gone; another
    `ssl.SSLError`; TimeoutError; OSError.
    """
    timeout = wire.inner.gettimeout()
    if timeout is None or (timeout == 0.0 and not block):
        _exchange(wire, hello, None)
        return
    try:
        if timeout == 0.0:
            wire.inner.settimeout(None)
        _exchange(wire, hello, monotonic() + timeout if timeout else None)
    finally:
        wire.restore(timeout)


def _exchange(wire: Wire, hello: HelloReader | None, limit: float | None) -> None:
    """Send and receive flights, until the monotonic time `limit`."""
    records = wire.records
    try:
        while not records.do_handshake():
            wire.flush(limit)
            if records.paused:
                wire.give_way()
                continue
            ciphertext = wire.receive(limit)
            if not ciphertext:
                raise truncation_error("the peer went away in the handshake")
            records.feed(_check_name(wire, hello, ciphertext))
    except ssl.SSLError:
        wire.try_flush()  # the alert
        raise
    # A server's last flight is session tickets. Where the client's first data came with the end of
    # its handshake, they leave with the answer: a system call less, and a segment.
    if not records.has_input:
        wire.flush(limit)


def _check_name(wire: Wire, hello: HelloReader | None, ciphertext: bytes) -> bytes:
    """What may be passed on to OpenSSL of `ciphertext`, which has been received."""
    if hello is None:
        return ciphertext
    try:
        return hello.feed(ciphertext)
    except HelloError as error:
        wire.unsent = _FATAL_ALERT + bytes([error.alert])
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, str(error)) from None
