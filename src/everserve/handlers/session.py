"""``DatagramSessionHandler``: all datagrams of one peer, in order, for one handler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from everserve.errors import HandlerError
from everserve.handlers.base import BaseRequestHandler, RequestT, ServerT
from everserve.lifecycle.session import Session
from everserve.mistakes import HandlerKind, handler_base
from everserve.reading import Reading

__all__ = ["DatagramSessionHandler"]


@handler_base(HandlerKind.DATAGRAM)
class DatagramSessionHandler(BaseRequestHandler[RequestT, ServerT]):
    """A handler for one peer: ``for datagram in self.datagrams: self.send(answer)``.

    ``self.datagrams`` are the bytes that the peer sends, in order. The loop waits for the next
    datagram, and ends with the session: after ``idle_timeout``, or when the server stops.
    ``self.truncated`` tells about the last datagram; ``self.socket`` is the server's socket. When
    ``handle`` returns the session is over; the next datagram of the peer opens another one.

    The server must have sessions, by ``DatagramSessionMixIn``; else ``setup`` raises ``HandlerError``.
    """

    def setup(self) -> None:
        """Open the session."""
        request: Any = self.request
        if not isinstance(request, Session):
            raise HandlerError(
                f"{type(self).__name__} needs a server with sessions: DatagramSessionMixIn"
            )
        self.datagrams: Iterator[bytes] = request.datagrams()
        self.socket: Any = request[1]

    def send(self, data: bytes) -> bool:
        """Send one datagram to the peer.

        False if it was not sent: a peer that is not validated gets at most ``reply_budget`` times the
        bytes that it has sent, as its address may be forged. Raises ``OSError``.
        """
        session: Any = self.request
        sent: bool = session.state.send(data)
        return sent

    def validate(self) -> None:
        """Note that the peer receives what is sent to its address: it has no reply budget any more.

        Call it when the peer has sent something that it can only know from a reply, such as a random
        token.
        """
        session: Any = self.request
        session.state.validated = True

    @Reading
    def validated(self) -> bool:
        """True once ``validate`` was called."""
        session: Any = self.request
        return bool(session.state.validated)
