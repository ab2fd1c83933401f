"""``StreamRequestHandler``: a connection as two files, ``rfile`` and ``wfile``."""

from __future__ import annotations

import socket
from contextlib import suppress
from io import BufferedIOBase
from typing import TYPE_CHECKING, Any, ClassVar

from everserve.handlers.base import BaseRequestHandler, RequestT, ServerT

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["StreamRequestHandler"]


class StreamRequestHandler(BaseRequestHandler[RequestT, ServerT]):
    """A handler with ``self.rfile`` to read from and ``self.wfile`` to write to, both binary.

    Class attributes, read by ``setup``:

    - ``rbufsize``: bytes to buffer when reading; -1 (default): as much as is good; 0: none
    - ``wbufsize``: bytes to buffer when writing; 0 (default): each write is sent at once
    - ``timeout``: seconds that one read or write may take (``TimeoutError``); ``None``: for ever
    - ``disable_nagle_algorithm``: send small writes at once (``TCP_NODELAY``)
    """

    rbufsize: ClassVar[int] = -1
    wbufsize: ClassVar[int] = 0
    timeout: float | None = None
    disable_nagle_algorithm: bool = False

    def setup(self) -> None:
        """Set the socket's options and open the files."""
        connection: Any = self.request
        self.connection: Any = connection
        if self.timeout is not None:
            connection.settimeout(self.timeout)
        if self.disable_nagle_algorithm:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self.rfile: Any = connection.makefile("rb", self.rbufsize)
        self.wfile: Any = (
            connection.makefile("wb", self.wbufsize) if self.wbufsize else _Writer(connection)
        )

    def finish(self) -> None:
        """Send what is left and close the files."""
        if not self.wfile.closed:
            with suppress(OSError):  # the peer may have gone before the last word
                self.wfile.flush()
        self.wfile.close()
        self.rfile.close()


class _Writer(BufferedIOBase):
    """The write half of a socket: each ``write`` sends all of it before it returns."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        self._connection.sendall(data)
        with memoryview(data) as view:
            return view.nbytes

    def fileno(self) -> int:
        descriptor: int = self._connection.fileno()
        return descriptor
