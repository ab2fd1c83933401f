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


class Datagram(tuple[bytes, socket.socket]):
    """The ``(data, socket)`` that a handler gets as its ``request``; ``truncated`` if its end was lost.

    If a proxy sent it, ``proxy`` is its header, and ``reply_to`` is the address of the proxy.
    """

    truncated: bool = False
    proxy: ProxyHeader | None = None
    reply_to: Any = None


def receive(sock: socket.socket, size: int, *, wait: bool) -> tuple[Datagram, Any]:
    """Receive one datagram of at most ``size`` bytes: ``(Datagram, address)``.

    Raises ``BlockingIOError`` if there is none and ``wait`` is false, and ``OSError`` for other errors.
    """
    flags = 0 if wait else _MSG_DONTWAIT
    if hasattr(sock, "recvmsg"):
        data, _, received, address = sock.recvmsg(size, 0, flags)
        truncated = bool(received & _MSG_TRUNC)
    else:  # Windows, or a user's object with the interface of a socket
        data, address = sock.recvfrom(size + 1)
        truncated = len(data) > size
    datagram = Datagram((data[:size], sock))
    if truncated:
        datagram.truncated = True
    return datagram, address
