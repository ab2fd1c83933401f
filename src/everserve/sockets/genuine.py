"""The class of real sockets, also where gevent or eventlet has replaced ``socket.socket``.

Sockets of fibers, layers such as TLS, and the compiled streams stand on it. A program that patches the
standard library before it imports everserve gets green sockets as requests: these are no real ones, and
are used through their methods.
"""

from __future__ import annotations

import _socket
import socket
from typing import TYPE_CHECKING, Any

__all__ = ["RealSocket", "is_patched"]


def is_patched() -> bool:
    """True if ``socket.socket`` is no real one, so that threads may be greenlets too."""
    return not issubclass(socket.socket, _socket.socket)


def _find() -> Any:
    if not is_patched():
        return socket.socket
    # The original lives on: ssl.SSLSocket, and what has replaced it, stand on it.
    for kind in _socket.socket.__subclasses__():
        if (kind.__module__, kind.__qualname__) == ("socket", "socket"):
            return kind
    raise ImportError(
        f"socket.socket was replaced by {socket.socket!r}, and the original is gone: "
        "import everserve before that"
    )


if TYPE_CHECKING:
    from socket import socket as RealSocket
else:
    RealSocket = _find()
