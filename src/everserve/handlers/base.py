"""``BaseRequestHandler``: one object for each request. Its constructor handles the request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from everserve.admission.cancellation import CancelReason
from everserve.admission.peer import Peer
from everserve.handlers.context import ContextSlot
from everserve.mistakes import HandlerKind, handler_base
from everserve.reading import Reading
from everserve.sockets.runs import constructor, no_op

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
        """At run time a handler is a plain class: ``Generic`` would be in every ``__mro__``."""

        def __class_getitem__(cls, parameters):
            return object


__all__ = ["BaseRequestHandler", "RequestT", "ServerT"]


@handler_base(HandlerKind.ANY)
class BaseRequestHandler(_Base[RequestT, ServerT]):
    """Handles one request: a subclass defines ``handle()``.

    The hooks, in call order: ``setup()``, ``handle()``, ``finish()``. The server's strategy determines
    the thread or fiber that runs them. ``finish`` is called even if ``handle`` raised, but not if
    ``setup`` did. They use ``self.request``, ``self.client_address`` and ``self.server``.

    Further attributes are computed on access: ``self.peer``; ``self.deadline`` and ``self.cancelled``,
    for a handler that computes; ``self.truncated``, for a datagram.

    For type checkers, ``BaseRequestHandler[socket.socket, MyServer]`` gives the types of request and
    server.
    """

    _everserve = ContextSlot()

    request: RequestT
    client_address: Any
    server: ServerT

    if not TYPE_CHECKING:

        def __class_getitem__(cls, parameters: Any) -> Any:
            further = getattr(super(), "__class_getitem__", None)
            return cls if further is None else further(parameters)

    @constructor
    def __init__(self, request: RequestT, client_address: Any, server: ServerT) -> None:
        self.request = request
        self.client_address = client_address
        self.server = server
        # What a hook returns is dropped, as in the standard library; but a coroutine wants to be run.
        if (result := self.setup()) is not None:
            self._everserve.run_coroutine(result, "setup")
        try:
            if (result := self.handle()) is not None:
                self._everserve.run_coroutine(result, "handle")
        finally:
            if (result := self.finish()) is not None:
                self._everserve.run_coroutine(result, "finish")

    @no_op
    def setup(self) -> Any:
        """Prepare; called before ``handle``."""

    def handle(self) -> Any:
        """Handle the request: a subclass defines it."""

    @no_op
    def finish(self) -> Any:
        """Clean up; called after ``handle``."""

    @Reading
    def peer(self) -> Peer:
        """The peer: address, proxy, TLS identity, Unix credentials. Looked up at the first access."""
        return self._everserve.peer(self.client_address)

    @Reading
    def deadline(self) -> float | None:
        """When ``request_timeout`` ends the request (``time.monotonic``); ``None`` for never."""
        return self._everserve.deadline()

    @Reading
    def cancelled(self) -> CancelReason | None:
        """Why a handler that computes should end: ``None``, or a ``CancelReason``, which is true.

        The server drains, the deadline has passed, or the peer has disconnected. A peer that has only
        ended its own half (``shutdown(SHUT_WR)``) still waits for the answer: it is not a reason.
        """
        return self._everserve.cancelled()

    @Reading
    def truncated(self) -> bool:
        """True if the request is a datagram whose end was lost (see ``max_packet_size``)."""
        return bool(getattr(self.request, "truncated", False))
