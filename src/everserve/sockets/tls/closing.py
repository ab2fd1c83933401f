"""The end of a TLS connection: close_notify, sent and received (RFC 8446, section 6.1).

A `TLSSocket` calls these when its side of the stream ends; shutting down and closing the socket below
stays its owner's.
"""

import ssl
from time import monotonic

from everserve.sockets.tls.wire import Wire, truncation_error

__all__ = ["await_close_notify", "end_tls", "read_ahead", "send_close_notify"]


def send_close_notify(wire: Wire, timeout: float = 0.0, *, last: bool = False) -> None:
    """Send close_notify within `timeout` seconds, or give up. Raises nothing.

    With 0.0 it is sent only where the lock is free and the kernel has room. `last`: see `send_now`.
    """
    limit = monotonic() + timeout
    if not (wire.lock.acquire(True, timeout) if timeout > 0.0 else wire.lock.acquire(False)):
        return
    try:
        wire.records.write_close_notify()
        wire.flush_now(last=last)
    except ssl.SSLWantWriteError:
        if timeout > 0.0:
            _flush_until(wire, limit)
    except OSError:
        pass
    finally:
        wire.lock.release()


def await_close_notify(wire: Wire, limit: float) -> None:
    """Wait for the peer's close_notify until the monotonic time `limit`; drop what comes before it.

    Raises nothing.
    """
    before = wire.inner.gettimeout()
    try:
        read_ahead(wire)
        while not wire.truncated and _may_receive(wire):
            wire.records.drop_ahead()
            read_ahead(wire, wire.receive(limit))
        wire.records.drop_ahead()
    except OSError:
        pass
    finally:
        wire.restore(before)


def end_tls(wire: Wire) -> None:
    """Send close_notify and wait for the peer's: what comes next is in clear.

    Errors: `ssl.SSLError` where the peer still sends data; `ssl.SSLEOFError` where it has gone.
    """
    records = wire.records
    with wire.lock:
        records.write_close_notify()
        wire.flush()
    unread = read_ahead(wire)
    while not unread and _may_receive(wire):
        ciphertext = wire.receive()
        if not ciphertext:
            raise truncation_error()
        unread = read_ahead(wire, ciphertext)
    if unread:
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, "application data after close notify")
    records.raise_deferred()


def read_ahead(wire: Wire, ciphertext: bytes = b"") -> int:
    """Decrypt `ciphertext` and all that came before it, giving way between; bytes of plaintext kept."""
    records = wire.records
    kept = records.read_ahead(ciphertext)
    while records.paused:
        wire.give_way()
        kept = records.read_ahead()
    return kept


def _may_receive(wire: Wire) -> bool:
    """Whether the peer's close_notify may still come."""
    records = wire.records
    return not (records.close_notify_received or records.broken)


def _flush_until(wire: Wire, limit: float) -> None:
    before = wire.inner.gettimeout()
    try:
        wire.flush(limit)
    except OSError:
        pass
    finally:
        wire.restore(before)
