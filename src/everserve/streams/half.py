"""What the two halves of a stream share: the socket, and what any binary file has.

It stands below the reader and the writer; `_half.pyx` is the same, compiled.
"""

import io
from typing import Any

from everserve.sockets.genuine import RealSocket

__all__ = ["Half"]


class Half(io.BufferedIOBase):
    """One direction of a stream: what the reader and the writer share."""

    _counts = False  # until the constructor has come so far: a destructor runs in any case

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self._counts = issubclass(type(sock), RealSocket)  # not what only claims to be one
        if self._counts:
            sock._io_refs += 1  # as makefile() does: the descriptor stays open till its files close

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")

    def _release(self) -> None:
        """Release the socket: it is closed if its owner has closed it and this was its last file."""
        if self._counts:
            self._counts = False
            self.sock._decref_socketios()

    @property
    def name(self) -> int:
        return -1 if self.closed else self.sock.fileno()

    def fileno(self) -> int:
        self._check_open()
        fd: int = self.sock.fileno()
        return fd

    def seekable(self) -> bool:
        self._check_open()
        return False

    def __reduce__(self) -> Any:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")
