"""What stands behind a handler: its connection, as the server knows it, looked up when first asked for.

The handler has it as its one private attribute.
"""

from __future__ import annotations

from typing import Any, Self, overload

from everserve.admission.cancellation import CancelReason, reason_to_stop
from everserve.admission.host import Host, host_of_server
from everserve.admission.peer import Peer
from everserve.errors import TLSConfigError

__all__ = ["ContextSlot", "HandlerContext"]


class HandlerContext:
    """The server's side of one request. A server that is not everserve's knows nothing of it."""

    def __init__(self, host: Host | None, request: Any) -> None:
        self._host = host
        self._request = request
        self._connection = None if host is None else host.connection_of(request)
        self._peer: Peer | None = None

    def peer(self, address: Any) -> Peer:
        """Who is there; looked up once."""
        if self._peer is None:
            self._peer = Peer.of(self._connection, self._request, address)
        return self._peer

    def deadline(self) -> float | None:
        """The end of the request (``time.monotonic``), ``None`` for never."""
        deadlines = getattr(self._connection, "deadlines", None)
        return None if deadlines is None else deadlines.ends

    def cancelled(self) -> CancelReason | None:
        """Why the handler should not go on, ``None`` to go on."""
        draining = self._host is not None and self._host.is_draining()
        return reason_to_stop(draining, self._connection, self._request)

    def coalesces_writes(self) -> bool:
        """True if the server wants what is written to leave when the handler next waits."""
        return self._host is not None and self._host.coalesces_writes()

    def start_tls(self, server: Any, client_address: Any) -> Any:
        """Do a TLS handshake; the socket to go on with, whose context this is from now on."""
        if self._host is None:
            raise TLSConfigError("start_tls() needs a server of everserve, with its tls")
        self._request = self._host.start_tls(server, self._request, client_address)
        self._peer = None
        return self._request


class ContextSlot:
    """The one private attribute of a handler class: makes the context when it is first asked for."""

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Any, owner: type) -> HandlerContext: ...
    def __get__(self, instance: Any, owner: type) -> Self | HandlerContext:
        if instance is None:
            return self
        context = HandlerContext(host_of_server(instance.server), instance.request)
        kept: HandlerContext = vars(instance).setdefault("_everserve", context)
        return kept
