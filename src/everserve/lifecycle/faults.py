"""Whether an exception is the fault of the peer, which disconnected, or of the handler.

``handle_error`` logs a debug line for the peer's fault, a traceback for the handler's.
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Any

from everserve.errors import FrameError, HandshakeError, LineTooLong, NoReplyAddressError
from everserve.sockets.datagrams import is_datagram
from everserve.sockets.genuine import is_socket
from everserve.sockets.hangup import is_hung_up
from everserve.sockets.tls import TLSSocket

__all__ = ["peer_is_gone"]

_GONE = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)
_UNIX = getattr(socket, "AF_UNIX", None)
_NO_ONE = (ConnectionRefusedError, FileNotFoundError)  # of sendto(2) over Unix sockets: unix(7)


def peer_is_gone(
    error: BaseException, request: Any, peer: Any = None, tls: TLSSocket | None = None
) -> bool:
    """True if ``error`` means that the peer of ``request`` disconnected, was silent for too long, or
    sent bytes that cannot be read. ``peer`` is its address, ``tls`` its TLS session.

    The same exceptions may come from another connection that the handler uses, such as a database. As
    long as the peer's own socket is alive, they are the handler's fault. Raises nothing: a socket of
    the program's own may fail in any way when it is asked.
    """
    try:
        return _is_of_peer(error, request, peer, tls)
    except Exception:
        return False


def _is_of_peer(error: BaseException, request: Any, peer: Any, tls: TLSSocket | None) -> bool:
    if isinstance(error, NoReplyAddressError | LineTooLong | FrameError | HandshakeError):
        return True
    if tls is not None and tls.broken and isinstance(error, ssl.SSLError | ConnectionError):
        return True
    if isinstance(error, _GONE):
        return not _is_connected(request)
    if isinstance(error, TimeoutError):
        return error.errno == errno.ETIMEDOUT or _has_timeout(request)
    if isinstance(error, _NO_ONE) and is_datagram(request):
        return request[1].family == _UNIX and not _has_reader(peer)
    return False


def _has_reader(address: Any) -> bool:
    """False if the Unix datagram socket at ``address`` is gone. A connect(2) checks it, unnoticed."""
    if not address or not isinstance(address, str | bytes):
        return True
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
    except _NO_ONE:
        return False
    except OSError:
        return True  # unknown: the error is the handler's
    return True


def _has_timeout(request: Any) -> bool:
    return is_socket(request) and request.gettimeout() is not None


def _is_connected(request: Any) -> bool:
    if is_datagram(request):
        return True  # never connected: the error is of another socket
    return is_socket(request) and is_hung_up(request) is False
