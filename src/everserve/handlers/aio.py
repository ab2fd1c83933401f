"""``AsyncStreamRequestHandler``: a connection as two files for a coroutine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from everserve.fibers import engines
from everserve.handlers.base import BaseRequestHandler, RequestT, ServerT
from everserve.handlers.stream import max_line_of, set_connection
from everserve.mistakes import HandlerKind, handler_base

if TYPE_CHECKING:
    from everserve.streams.aio import AsyncReader, AsyncWriter, Doing
else:
    AsyncReader = engines.part("aio", "streams").AsyncReader
    AsyncWriter = engines.part("aio", "streams").AsyncWriter
    Doing = engines.part("aio", "streams").Doing

__all__ = ["AsyncStreamRequestHandler"]


@handler_base(HandlerKind.ASYNC_STREAM)
class AsyncStreamRequestHandler(BaseRequestHandler[RequestT, ServerT]):
    """A ``StreamRequestHandler`` with ``async def handle(self)``, for servers with ``AsyncMixIn``.

    ``handle`` runs as a task of asyncio. ``setup`` runs before it and ``finish`` after it; a subclass
    may define them with ``def`` or with ``async def``, and calls ``super().setup()`` without ``await``.

    - ``await self.rfile.readline()``, ``read(size)``, ``read1()``, ``readexactly(size)``,
      ``async for line in self.rfile``
    - ``self.wfile.write(data)`` never waits: what is written leaves when the task next waits;
      ``await self.wfile.drain()`` waits while the peer does not read, ``await self.wfile.flush()``
      until the kernel has taken all

    Class attributes, read by ``setup``:

    - ``max_line``: bytes that a line may have, else ``LineTooLong``; ``None``: any number. A class that
      does not set it takes that of its server (64 KiB under ``serve()``)
    - ``timeout``: seconds that one read or send may take (``TimeoutError``); ``None``: forever
    - ``disable_nagle_algorithm``: send small writes at once (``TCP_NODELAY``)

    ``self.connection`` is ``self.request``: a socket whose own calls would block the loop.
    """

    timeout: float | None = None
    disable_nagle_algorithm: bool = False
    max_line: int | None = None

    rfile: AsyncReader
    wfile: AsyncWriter

    def setup(self) -> Any:
        """Set the socket's options and open the files."""
        self.connection: Any = self.request
        set_connection(self)
        _open_files(self)

    async def start_tls(self) -> None:
        """Change to TLS (STARTTLS), as ``StreamRequestHandler.start_tls``."""
        carrier = self._everserve.carrier
        await self.wfile.flush()
        self.rfile.close()
        secured = await Doing(
            carrier, lambda: self._everserve.start_tls(self.server, self.client_address)
        )
        self.wfile.close()
        self.request = self.connection = secured
        _open_files(self)

    def finish(self) -> Any:
        """Send what is left and close the files."""
        self.wfile.close()
        self.rfile.close()


def _open_files(handler: AsyncStreamRequestHandler[Any, Any]) -> None:
    carrier = handler._everserve.carrier
    most = max_line_of(handler, AsyncStreamRequestHandler)
    handler.rfile = AsyncReader(handler.connection, carrier, max_line=most)
    handler.wfile = AsyncWriter(handler.connection, carrier)
