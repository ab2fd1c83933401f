"""The class of real sockets, also where gevent or eventlet has replaced ``socket.socket``.

Sockets of fibers, layers such as TLS, and the compiled streams stand on it. A program that patches the
standard library before it imports everserve gets green sockets as requests: these are no real ones, and
are used through their methods.
"""

from __future__ import annotations

import _socket
import socket
from typing import TYPE_CHECKING, Any, TypeGuard

__all__ = ["RealSocket", "is_patched", "is_socket"]


def is_patched() -> bool:
    """True if ``socket.socket`` is no real one, so that threads may be greenlets too."""
    kind: Any = socket.socket
    return isinstance(kind, type) and not issubclass(kind, _socket.socket)  # else a mock


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


def is_socket(thing: Any) -> TypeGuard[socket.socket]:
    """True for a socket, real or green: by its type, as ``__class__`` may be pretended.

    A test may also have replaced the name ``socket.socket`` by a mock.
    """
    kind = type(thing)
    if issubclass(kind, RealSocket):
        return True
    green: Any = socket.socket
    return isinstance(green, type) and issubclass(kind, green)
