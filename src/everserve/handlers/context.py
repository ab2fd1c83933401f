"""The server's side of a handler: its connection, looked up in the server at the first access.

It is the handler's one private attribute.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, overload

from everserve.admission.cancellation import CancelReason, reason_to_stop
from everserve.admission.host import Host, host_of_server
from everserve.admission.peer import Peer
from everserve.errors import TLSConfigError
from everserve.fibers import engines

if TYPE_CHECKING:
    from everserve.fibers.carrying import Carrier, carrier_for
else:
    Carrier = engines.part("carrying", "fibers").Carrier
    carrier_for = engines.part("carrying", "fibers").carrier_for

__all__ = ["ContextSlot", "HandlerContext"]


class HandlerContext:
    """The server's side of one request. Empty under a server of another library.

    ``conversation`` is that of a message handler.
    """

    __slots__ = ("_carrier", "_connection", "_host", "_peer", "_request", "conversation")

    def __init__(self, host: Host | None, request: Any) -> None:
        self._host = host
        self._request = request
        self._connection = None if host is None else host.connection_of(request)
        self._peer: Peer | None = None
        self.conversation: Any = None
        self._carrier: Carrier | None = None

    def peer(self, address: Any) -> Peer:
        """The peer; looked up once."""
        if self._peer is None:
            self._peer = Peer.of(self._connection, self._request, address)
        return self._peer

    def deadline(self) -> float | None:
        """The end of the request (``time.monotonic``); ``None`` for never."""
        deadlines = getattr(self._connection, "deadlines", None)
        return None if deadlines is None else deadlines.ends

    def cancelled(self) -> CancelReason | None:
        """Why the handler should end; ``None`` to go on."""
        draining = self._host is not None and self._host.is_draining()
        return reason_to_stop(draining, self._connection, self._request)

    def coalesces_writes(self) -> bool:
        """True if the server sends written bytes when the handler next waits."""
        return self._host is not None and self._host.coalesces_writes()

    def max_line(self) -> int | None:
        """The server's bound for a line; ``None`` for none."""
        return None if self._host is None else self._host.max_line()

    def open_conversation(self, server: Any, make: Callable[[Host | None, Any, Any], Any]) -> Any:
        """Make the conversation of a message handler: ``make(host, connection, parking)``."""
        host, connection = self._host, self._connection
        parking = None if host is None else host.parking_of(server, connection, self._request)
        self.conversation = make(host, connection, parking)
        if connection is not None:
            connection.conversation = self.conversation
        return self.conversation

    @property
    def carrier(self) -> Carrier:
        """The fiber that carries the tasks of the handler. Raises ``HubError`` where none can."""
        if self._carrier is None:
            self._carrier = Carrier()
        return self._carrier

    def run_coroutine(self, result: Any, hook: str) -> None:
        """Run what the hook of a handler returned, if that is a coroutine, to its end."""
        if not inspect.iscoroutine(result):
            return
        if self._carrier is None:
            self._carrier = carrier_for(result, hook)
        self._carrier.run(result)

    def start_tls(self, server: Any, client_address: Any) -> Any:
        """Do a TLS handshake. Returns the socket to use from then on; this is its context now."""
        if self._host is None:
            raise TLSConfigError("start_tls() needs a server of everserve, with its tls")
        self._request = self._host.start_tls(server, self._request, client_address)
        self._peer = None
        return self._request


class ContextSlot:
    """The one private attribute of a handler class: makes the context at the first access."""

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
