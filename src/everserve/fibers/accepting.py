"""Accepting in batches: all waiting connections, as fiber sockets.

It stands between a listener and the server that starts a fiber for each connection; `_accepting.pyx`
is the same, compiled.
"""

import _socket
import errno
import os
import socket
from typing import Any

from everserve.fibers.sockets import FiberSocket

__all__ = ["accept_many"]

_CSocket: Any = _socket.socket


def accept_many(fd: int, limit: int = 100, cls: type[FiberSocket] = FiberSocket) -> list[Any]:
    """Accept at most `limit` waiting connections: a list of (socket, address); may be empty.

    `fd` belongs to a non-blocking listener. An error of accept(2) is raised if no connection was
    accepted before it, and else left to the next call.
    """
    if fd < 0:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    listener = _CSocket(fileno=fd)
    found: list[Any] = []
    try:
        listener.settimeout(0.0)
        while len(found) < limit:
            accepted, address = listener._accept()
            found.append((_adopt(cls, accepted, listener.family), address))
    except BlockingIOError:
        pass
    except OSError:
        if not found:
            raise
    finally:
        listener.detach()
    return found


def _adopt(cls: type[FiberSocket], fd: int, family: int) -> FiberSocket:
    """Make a socket that owns `fd`, which is closed if that fails."""
    try:
        os.set_blocking(fd, False)
        return cls._adopt(fd, family, socket.SOCK_STREAM, 0)
    except BaseException:
        os.close(fd)
        raise
