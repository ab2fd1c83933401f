"""``DatagramRequestHandler``: a datagram as a file, and the reply as another."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from everserve.errors import NoReplyAddressError
from everserve.handlers.base import BaseRequestHandler, RequestT, ServerT
from everserve.mistakes import HandlerKind, handler_base

__all__ = ["DatagramRequestHandler"]


@handler_base(HandlerKind.DATAGRAM)
class DatagramRequestHandler(BaseRequestHandler[RequestT, ServerT]):
    """A handler with the datagram in ``self.rfile``; the bytes written to ``self.wfile`` are the reply.

    ``self.packet`` holds the bytes, ``self.socket`` is the server's socket, ``self.truncated`` is true
    if the end was lost. If the handler writes nothing, nothing is sent.
    """

    def setup(self) -> None:
        """Open the files."""
        request: Any = self.request
        self.packet: bytes = request[0]
        self.socket: Any = request[1]
        self.rfile = BytesIO(self.packet)
        self.wfile = BytesIO()

    def finish(self) -> None:
        """Send the reply, if there is one, as one datagram."""
        reply = self.wfile.getvalue()
        if not reply:
            return
        address = getattr(self.request, "reply_to", None) or self.client_address
        if not address:
            raise NoReplyAddressError(
                "the sender has no address: it must bind its socket for a reply"
            )
        self.socket.sendto(reply, address)
