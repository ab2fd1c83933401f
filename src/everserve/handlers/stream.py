"""``StreamRequestHandler``: a connection as two files, ``rfile`` and ``wfile``."""

from __future__ import annotations

import socket
from io import BufferedIOBase
from typing import Any

from everserve.handlers.base import BaseRequestHandler, RequestT, ServerT
from everserve.mistakes import HandlerKind, handler_base
from everserve.reading import DefaultInt, attribute_of
from everserve.sockets.genuine import RealSocket
from everserve.streams import Writer, open_stream

__all__ = ["StreamRequestHandler", "max_line_of", "set_connection"]

_EACH_WRITE = DefaultInt(0)
_makefile = RealSocket.makefile


@handler_base(HandlerKind.STREAM)
class StreamRequestHandler(BaseRequestHandler[RequestT, ServerT]):
    """A handler with ``self.rfile`` to read from and ``self.wfile`` to write to, both binary.

    Class attributes, read by ``setup``:

    - ``rbufsize``: bytes to buffer when reading; -1 (default): a suitable size; 0: none
    - ``wbufsize``: bytes to buffer when writing; 0 (default): each write is sent at once
    - ``coalesce_writes``: written bytes are sent together, in order, when the handler next waits,
      flushes or ends, or at 64 KiB; ``None`` (default): under fibers, unless ``wbufsize`` is set
    - ``max_line``: bytes that a line may have, else ``LineTooLong``; ``None``: any number. A class that
      does not set it takes that of its server (64 KiB under ``serve()``)
    - ``timeout``: seconds that one read or write may take (``TimeoutError``); ``None``: forever
    - ``disable_nagle_algorithm``: send small writes at once (``TCP_NODELAY``)
    """

    rbufsize: int = -1
    wbufsize: int = _EACH_WRITE
    timeout: float | None = None
    disable_nagle_algorithm: bool = False
    coalesce_writes: bool | None = None
    max_line: int | None = None

    rfile: BufferedIOBase
    wfile: BufferedIOBase

    def setup(self) -> None:
        """Set the socket's options and open the files."""
        self.connection: Any = self.request
        set_connection(self)
        _open_files(self)

    def start_tls(self) -> None:
        """Change to TLS (STARTTLS), with the ``tls`` of the server. Then ``self.peer.tls`` is set.

        Call it after the reply that lets the peer begin TLS. Cleartext that the peer sent after its
        request is discarded: it must not be treated as TLS data (RFC 7457, section 2.2). Raises
        ``ConnectionError`` if the handshake fails or takes longer than ``handshake_timeout``. The
        server needs ``implicit_tls = False``.
        """
        self.wfile.flush()
        self.rfile.close()
        self.wfile.close()
        secured = self._everserve.start_tls(self.server, self.client_address)
        self.request = self.connection = secured
        _open_files(self)

    def finish(self) -> None:
        """Send what is left and close the files."""
        if not self.wfile.closed:
            try:
                self.wfile.flush()
            except OSError:
                pass  # the peer may have disconnected before the last bytes
        self.wfile.close()
        self.rfile.close()


def set_connection(handler: Any) -> None:
    """Set the options of ``handler.connection`` that the class attributes name."""
    connection = handler.connection
    if handler.timeout is not None:
        connection.settimeout(handler.timeout)
    if handler.disable_nagle_algorithm:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)


def _open_files(handler: StreamRequestHandler[Any, Any]) -> None:
    connection = handler.connection
    if handler.rbufsize and _has_plain_files(connection):
        handler.rfile, handler.wfile = open_stream(
            connection,
            wbufsize=handler.wbufsize,
            coalesce=_coalesces(handler),
            max_line=max_line_of(handler, StreamRequestHandler),
        )
        return
    # Reading ahead is off, or the object makes its files itself.
    handler.rfile = connection.makefile("rb", handler.rbufsize)
    if handler.wbufsize:
        handler.wfile = connection.makefile("wb", handler.wbufsize)
    else:
        handler.wfile = Writer(connection)


def _has_plain_files(connection: Any) -> bool:
    """True for a socket by type, not by ``__class__``, whose ``makefile`` is the standard one."""
    if not issubclass(type(connection), RealSocket):
        return False
    return getattr(connection.makefile, "__func__", None) is _makefile


def max_line_of(handler: Any, base: type) -> int | None:
    """The handler's bound, or else the server's; a subclass of ``base`` may set ``None``."""
    own = attribute_of(handler, "max_line")
    if type(own) is int:
        return own
    if "max_line" in vars(handler):
        return None
    setter = next(cls for cls in type(handler).__mro__ if "max_line" in vars(cls))
    most: int | None = handler._everserve.max_line() if setter is base else None
    return most


def _coalesces(handler: StreamRequestHandler[Any, Any]) -> bool:
    """The handler's setting, or else the server's; a ``wbufsize`` that the program sets comes first."""
    own = attribute_of(handler, "coalesce_writes")
    if type(own) is bool:
        return own
    return handler.wbufsize is _EACH_WRITE and handler._everserve.coalesces_writes()
