"""``BaseRequestHandler``: one object for each request, which it handles while it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from everserve.admission.cancellation import CancelReason
from everserve.admission.peer import Peer
from everserve.handlers.context import ContextSlot
from everserve.reading import Reading

if TYPE_CHECKING:
    from typing import Generic

    from typing_extensions import TypeVar

    RequestT = TypeVar("RequestT", default=Any)
    ServerT = TypeVar("ServerT", default=Any)

    class _Base(Generic[RequestT, ServerT]): ...

else:
    from typing import TypeVar

    RequestT = TypeVar("RequestT")
    ServerT = TypeVar("ServerT")

    class _Base:
        """At run time a handler is a plain class: ``Generic`` would stand in every ``__mro__``."""

        def __class_getitem__(cls, parameters):
            return object


__all__ = ["BaseRequestHandler", "RequestT", "ServerT"]


class BaseRequestHandler(_Base[RequestT, ServerT]):
    """Handles one request: a subclass defines ``handle()``.

    The hooks, in the order in which they are called, where the server's strategy runs requests:
    ``setup()``, ``handle()``, ``finish()``. ``finish`` is called even if ``handle`` raised, and not if
    ``setup`` did. They find ``self.request``, ``self.client_address`` and ``self.server``.

    And, worked out when asked: ``self.peer``, who is there; ``self.deadline`` and
    ``self.cancelled``, for one that computes; ``self.truncated``, of a datagram.

    For types, ``BaseRequestHandler[socket.socket, MyServer]`` tells what the request and server are.
    """

    _everserve = ContextSlot()

    request: RequestT
    client_address: Any
    server: ServerT

    if not TYPE_CHECKING:

        def __class_getitem__(cls, parameters: Any) -> Any:
            further = getattr(super(), "__class_getitem__", None)
            return cls if further is None else further(parameters)

    def __init__(self, request: RequestT, client_address: Any, server: ServerT) -> None:
        self.request = request
        self.client_address = client_address
        self.server = server
        self.setup()
        try:
            self.handle()
        finally:
            self.finish()

    def setup(self) -> None:
        """Prepare; called before ``handle``."""

    def handle(self) -> None:
        """Do what the request asks for."""

    def finish(self) -> None:
        """Clean up; called after ``handle``."""

    @Reading
    def peer(self) -> Peer:
        """Who is there: address, proxy, TLS identity, Unix credentials. Looked up when first asked."""
        return self._everserve.peer(self.client_address)

    @Reading
    def deadline(self) -> float | None:
        """When ``request_timeout`` ends the request (``time.monotonic``); ``None`` for never."""
        return self._everserve.deadline()

    @Reading
    def cancelled(self) -> CancelReason | None:
        """Why a handler that computes should not go on: ``None``, or a ``CancelReason``, which is true.

        The server drains, the deadline has passed, or the peer has gone. A peer that has only ended
        its own half (``shutdown(SHUT_WR)``) still waits for the answer, and has not gone.
        """
        return self._everserve.cancelled()

    @Reading
    def truncated(self) -> bool:
        """True if the request is a datagram whose end was lost (see ``max_packet_size``)."""
        return bool(getattr(self.request, "truncated", False))
