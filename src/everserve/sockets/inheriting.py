"""Take over a listening socket that another process opened: ``fd://3``."""

from __future__ import annotations

import errno
import os
import socket
import weakref

from everserve.sockets.listening import naming

__all__ = ["came_non_blocking", "inherit"]

_non_blocking: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def inherit(descriptor: int) -> socket.socket:
    """The listening socket of ``descriptor``; family and type are read from the descriptor.

    The caller owns it. Raises ``OSError`` with ``fd://...`` in ``filename`` if it is not a socket, or
    is a connected one.
    """
    with naming(f"fd://{descriptor}"):
        os.fstat(descriptor)  # a closed descriptor: "bad file descriptor", not "not a socket"
        sock = socket.socket(fileno=descriptor)
        try:
            _make_listening(sock)
        except BaseException:
            sock.detach()
            raise
    sock.set_inheritable(False)
    if not os.get_blocking(descriptor):
        _non_blocking.add(sock)
    return sock


def came_non_blocking(sock: socket.socket) -> bool:
    """True if the process that opened ``sock`` has made it non-blocking: it is to stay so.

    The mode itself does not show it, as another process that shares the socket may serve.
    """
    return sock in _non_blocking


def _make_listening(sock: socket.socket) -> None:
    if sock.type == socket.SOCK_DGRAM:
        return
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        try:
            sock.getpeername()
        except OSError:
            sock.listen(socket.SOMAXCONN)
        else:
            raise OSError(errno.EINVAL, "it is a connection, not a listening socket")
