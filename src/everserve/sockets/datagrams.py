"""Receive whole datagrams, and detect truncated ones.

``UDPServer.get_request`` calls ``receive``; the ``Datagram`` it returns is the handler's ``request``.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everserve.wire.proxy import ProxyHeader

__all__ = ["LARGEST", "Datagram", "receive"]

LARGEST = 65535
"""The length field of UDP has 16 bits (RFC 768): no datagram is longer, in bytes."""

# As plain numbers: combining the flags of an enum takes a microsecond each.
_MSG_DONTWAIT = int(getattr(socket, "MSG_DONTWAIT", 0))
_MSG_TRUNC = int(getattr(socket, "MSG_TRUNC", 0))
_SCM_CREDENTIALS = getattr(socket, "SCM_CREDENTIALS", -1)
# A struct ucred: unix(7). The credentials come first, so descriptors that a peer passes find no room.
_OF_CREDENTIALS = socket.CMSG_SPACE(12) if hasattr(socket, "CMSG_SPACE") else 0


class Datagram(tuple[bytes, socket.socket]):
    """The ``(data, socket)`` that a handler gets as its ``request``; ``truncated`` if its end was lost.

    If a proxy sent it, ``proxy`` is its header, and ``reply_to`` is the address of the proxy.
    ``credentials`` are those of the process that sent it over a Unix socket, a packed ``struct ucred``.
    """

    truncated: bool = False
    proxy: ProxyHeader | None = None
    reply_to: Any = None
    credentials: bytes | None = None


def receive(
    sock: socket.socket, size: int, *, wait: bool, credentials: bool = False
) -> tuple[Datagram, Any]:
    """Receive one datagram of at most ``size`` bytes: ``(Datagram, address)``.

    ``credentials``: take those of the sender too, if the kernel passes them. Raises
    ``BlockingIOError`` if there is none and ``wait`` is false, and ``OSError`` for other errors.
    """
    flags = 0 if wait else _MSG_DONTWAIT
    ancillary: list[tuple[int, int, bytes]] = []
    if hasattr(sock, "recvmsg"):
        data, ancillary, received, address = sock.recvmsg(
            size, _OF_CREDENTIALS if credentials else 0, flags
        )
        truncated = bool(received & _MSG_TRUNC)
    else:  # Windows, or a user's object with the interface of a socket
        data, address = sock.recvfrom(size + 1)
        truncated = len(data) > size
    datagram = Datagram((data[:size], sock))
    if truncated:
        datagram.truncated = True
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == _SCM_CREDENTIALS:
            datagram.credentials = value
    return datagram, address
