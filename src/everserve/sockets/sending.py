"""A send(2) that never waits, whatever the time limit of the socket.

TLS sends alerts and close_notify with it, as these must never wait for the peer.
"""

import _socket
import errno
import os
import socket

__all__ = ["send_now"]

_MORE = getattr(_socket, "MSG_MORE", 0)
_NON_BLOCKING = _socket.SOCK_STREAM | getattr(_socket, "SOCK_NONBLOCK", 0)


def send_now(sock: socket.socket, data: "bytes | memoryview", *, last: bool = False) -> int:
    """Send the part of `data` that the kernel accepts at once. Returns the number of bytes.

    `last`: the stream is shut down directly after this. The kernel may keep the data until then, or
    for 0.2 s, so that both leave in one segment.

    The time limit of `sock` may be in use by a reader, so this works on a second object for the same
    descriptor. Its family is not specified, as send(2) does not need one.

    Errors: BlockingIOError when there is no room; OSError (EBADF) when `sock` is closed.
    """
    fd = sock.fileno()
    if fd < 0:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    second = _socket.socket(_socket.AF_UNSPEC, _NON_BLOCKING, 0, fd)
    try:
        return second.send(data, _socket.MSG_DONTWAIT | (_MORE if last else 0))
    finally:
        second.detach()
