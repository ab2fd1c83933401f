"""``StreamRequestHandler``: a connection as two files, ``rfile`` and ``wfile``."""

from __future__ import annotations

import socket
from typing import Any, ClassVar

from everserve.handlers.base import BaseRequestHandler, RequestT, ServerT
from everserve.reading import option
from everserve.streams import Writer, open_stream

__all__ = ["StreamRequestHandler"]


class StreamRequestHandler(BaseRequestHandler[RequestT, ServerT]):
    """A handler with ``self.rfile`` to read from and ``self.wfile`` to write to, both binary.

    Class attributes, read by ``setup``:

    - ``rbufsize``: bytes to buffer when reading; -1 (default): as much as is good; 0: none
    - ``wbufsize``: bytes to buffer when writing; 0 (default): each write is sent at once
    - ``coalesce_writes``: what is written leaves together, in order, when the handler next waits,
      flushes or ends, or at 64 KiB; ``None`` (default): under fibers, unless ``wbufsize`` is set
    - ``max_line``: bytes that a line may have, else ``LineTooLong``; ``None`` (default): any number
    - ``timeout``: seconds that one read or write may take (``TimeoutError``); ``None``: for ever
    - ``disable_nagle_algorithm``: send small writes at once (``TCP_NODELAY``)
    """

    rbufsize: ClassVar[int] = -1
    wbufsize: ClassVar[int] = 0
    timeout: float | None = None
    disable_nagle_algorithm: bool = False
    coalesce_writes: bool | None = None
    max_line: int | None = None

    _sets_wbufsize: ClassVar[bool] = False

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls._sets_wbufsize = cls._sets_wbufsize or "wbufsize" in vars(cls)

    def setup(self) -> None:
        """Set the socket's options and open the files."""
        connection: Any = self.request
        self.connection: Any = connection
        if self.timeout is not None:
            connection.settimeout(self.timeout)
        if self.disable_nagle_algorithm:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self._open_files(connection)

    def _open_files(self, connection: Any) -> None:
        self.rfile: Any
        self.wfile: Any
        if self.rbufsize and isinstance(connection, socket.socket):
            self.rfile, self.wfile = open_stream(
                connection,
                wbufsize=self.wbufsize,
                coalesce=self._coalesces(),
                max_line=option(self.max_line),
            )
        else:  # nothing may be read ahead, or it only looks like a socket
            self.rfile = connection.makefile("rb", self.rbufsize)
            self.wfile = (
                connection.makefile("wb", self.wbufsize) if self.wbufsize else Writer(connection)
            )

    def _coalesces(self) -> bool:
        """As the handler says, or else the server; a subclass that sets ``wbufsize`` means it."""
        own = self.coalesce_writes
        if own is None or callable(own):
            if self._sets_wbufsize or self.wbufsize:
                return False
            own = getattr(self.server, "coalesce_writes", False)
        return own is True or bool(option(own))

    def start_tls(self) -> None:
        """Go on with TLS (STARTTLS), with the ``tls`` of the server; then ``self.peer.tls`` is there.

        Call it when the peer has been told to begin. What it sent in clear behind its request is
        thrown away: it must not be taken for TLS (RFC 7457, section 2.2). Raises ``ConnectionError``
        where the handshake fails or takes longer than ``handshake_timeout``. The server has
        ``implicit_tls = False``.
        """
        self.wfile.flush()
        self.rfile.close()
        self.wfile.close()
        server: Any = self.server
        self.request = self.connection = server._start_tls(self.request, self.client_address)
        self._peer = None
        self._open_files(self.request)

    def finish(self) -> None:
        """Send what is left and close the files."""
        if not self.wfile.closed:
            try:
                self.wfile.flush()
            except OSError:
                pass  # the peer may have gone before the last word
        self.wfile.close()
        self.rfile.close()
