"""Receive datagrams whole, and tell when the end of one was cut off.

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

# As plain numbers: the flags of an enum take a microsecond each to be combined.
_MSG_DONTWAIT = int(getattr(socket, "MSG_DONTWAIT", 0))
_MSG_TRUNC = int(getattr(socket, "MSG_TRUNC", 0))


class Datagram(tuple[bytes, socket.socket]):
    """The ``(data, socket)`` that a handler gets as its ``request``; ``truncated`` if it was cut.

    Where a proxy sent it, ``proxy`` is its header, and ``reply_to`` the address of the proxy.
    """

    truncated: bool = False
    proxy: ProxyHeader | None = None
    reply_to: Any = None


def receive(sock: socket.socket, size: int, *, wait: bool) -> tuple[Datagram, Any]:
    """Receive one datagram of at most ``size`` bytes: ``(Datagram, address)``.

    Raises ``BlockingIOError`` where none is there and ``wait`` is false, else ``OSError``.
    """
    flags = 0 if wait else _MSG_DONTWAIT
    if hasattr(sock, "recvmsg"):
        data, _, received, address = sock.recvmsg(size, 0, flags)
        truncated = bool(received & _MSG_TRUNC)
    else:  # Windows, or an object of the user's that only looks like a socket
        data, address = sock.recvfrom(size + 1)
        truncated = len(data) > size
    datagram = Datagram((data[:size], sock))
    if truncated:
        datagram.truncated = True
    return datagram, address
