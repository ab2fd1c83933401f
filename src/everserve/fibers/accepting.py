"""Accepting in batches: all connections that wait, as fiber sockets.

It stands between a listener and the server that starts a fiber for each; `_accepting.pyx` is the
same, compiled.
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

    `fd` belongs to a non-blocking listener. Raises what accept(2) says when that comes first, and
    leaves it to the next call when connections came before it.
    """
    if fd < 0:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    listener = _CSocket(fileno=fd)
    found: list[Any] = []
    try:
        listener.settimeout(0.0)
        while len(found) < limit:
            accepted, address = listener._accept()
            os.set_blocking(accepted, False)
            sock = cls._adopt(accepted, listener.family, socket.SOCK_STREAM, 0)
            found.append((sock, address))
    except BlockingIOError:
        pass
    except OSError:
        if not found:
            raise
    finally:
        listener.detach()
    return found
