"""The peer of a request: one frozen object with all that is known about it.

A handler reads it as ``self.peer``; nothing is looked up before that.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from everserve.sockets.datagrams import PeerAddress
from everserve.sockets.tls import TLSIdentity
from everserve.wire.proxy import ProxyHeader

__all__ = ["Credentials", "Peer", "credentials_of"]

_CREDENTIALS = struct.Struct("iII")  # struct ucred: unix(7); ids above 2**31 are not negative


class Credentials(NamedTuple):
    """The process at the other end of a Unix socket, as the kernel recorded it.

    Of a stream, the one that connected (``SO_PEERCRED``); of a datagram, the one that sent it
    (``SCM_CREDENTIALS``).
    """

    pid: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a request.

    ``address`` is the client's, as in ``client_address``; ``transport`` is ``tcp``, ``udp``, ``unix``
    or ``unixgram``. ``proxy`` is the ``ProxyHeader``, with its TLVs, if a proxy sent one, and
    ``proxy_address`` is that proxy's own; ``tls`` is the ``TLSIdentity`` of a TLS connection;
    ``credentials`` are those of the process at the other end of a Unix socket. ``local`` is the
    address of the server that the peer has connected to, or sent its datagram to, also where the server
    is bound to all addresses. A field without a value is ``None``.
    """

    address: Any
    transport: str
    proxy: ProxyHeader | None = None
    proxy_address: Any = None
    tls: TLSIdentity | None = None
    credentials: Credentials | None = None
    local: Any = field(default=None, compare=False)

    @classmethod
    def of(cls, connection: Any, request: Any, address: Any) -> Peer:
        """Look up all fields. ``connection`` is the server's entry, or ``None``."""
        sock = request[1] if isinstance(request, tuple) else request
        proxy = getattr(connection, "proxy", None) or getattr(request, "proxy", None)
        tls = getattr(connection, "tls", None)
        return cls(
            address=address,
            transport=_transport(sock),
            proxy=proxy,
            proxy_address=_proxy_address(request, sock) if proxy is not None else None,
            tls=None if tls is None else tls.identity(),
            credentials=_sender_of(request) or credentials_of(sock),
            local=_local_address(request, sock, address),
        )


def _transport(sock: Any) -> str:
    stream = getattr(sock, "type", None) != socket.SOCK_DGRAM
    if getattr(sock, "family", None) == getattr(socket, "AF_UNIX", -1):
        return "unix" if stream else "unixgram"
    return "tcp" if stream else "udp"


def _local_address(request: Any, sock: Any, address: Any) -> Any:
    sender = getattr(request, "reply_to", None) or address
    if isinstance(sender, PeerAddress):
        return sender.local
    try:
        return sock.getsockname()
    except (OSError, AttributeError):
        return None  # closed meanwhile; or it only claims to be a socket


def _proxy_address(request: Any, sock: Any) -> Any:
    if isinstance(request, tuple):
        return getattr(request, "reply_to", None)
    try:
        return sock.getpeername()
    except OSError:
        return None  # the connection has ended meanwhile


def _sender_of(request: Any) -> Credentials | None:
    """The process that sent a datagram; ``None`` where the kernel did not pass its credentials."""
    packed = getattr(request, "credentials", None)
    if not isinstance(packed, bytes) or len(packed) != _CREDENTIALS.size:
        return None
    return Credentials(*_CREDENTIALS.unpack(packed))


def credentials_of(sock: Any) -> Credentials | None:
    """The process at the other end of a Unix stream; ``None`` for others, and where it is unknown."""
    if _transport(sock) != "unix" or not hasattr(socket, "SO_PEERCRED"):
        return None
    try:
        packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return None
    return Credentials(*_CREDENTIALS.unpack(packed))
