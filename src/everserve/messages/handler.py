"""``MessageRequestHandler``: one method for each message, on streams and on datagrams."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from everserve.errors import FrameError, NoReplyAddressError
from everserve.handlers.base import BaseRequestHandler, RequestT, ServerT
from everserve.messages.codecs import Codec, JSONLines, Lengths, Lines
from everserve.messages.ended import ENDED
from everserve.messages.engine import run_coroutine
from everserve.messages.executed import answer_of, conversation_of
from everserve.messages.moving import MovableSlot, state_of, take_state
from everserve.mistakes import HandlerKind, handler_base
from everserve.wire.codec import is_several

__all__ = [
    "FrameRequestHandler",
    "JSONRequestHandler",
    "LineRequestHandler",
    "MessageRequestHandler",
]

OutboxPolicy: TypeAlias = Literal["wait", "drop-oldest", "drop-newest", "disconnect"]


@handler_base(HandlerKind.MESSAGE)
class MessageRequestHandler(BaseRequestHandler[RequestT, ServerT]):
    """Handles one connection, a message at a time: a subclass defines ``codec`` and ``handle_message``.

    The hooks, in call order: ``setup()``, ``on_connect()``, ``handle_message(message)`` for each
    message, or ``on_bad_message(error)``, ``on_disconnect()``, ``finish()``. Those of one connection
    run one after the other, though not always in the same thread. With ``concurrency="asyncio"`` each
    may be ``async def``. The object lives as long as its connection: its attributes are its state. A
    datagram is a message; each has its own object, and neither ``on_connect`` nor ``on_disconnect``.

    Between messages, a connection in a fiber has no fiber, and one in a pool no thread. Class
    attributes:

    - ``codec``: a ``Codec``, such as ``Lines()``
    - ``pipeline_depth`` (messages, default 64): so many that have come are taken at a time; their
      replies are sent before the next are taken
    - ``outbox`` (messages, default 256): so many may wait until the peer reads; ``outbox_policy``
      is for one that is pushed above that: ``"wait"`` (default), ``"drop-oldest"``,
      ``"drop-newest"``, or ``"disconnect"``
    - ``idempotent`` (default ``False``): a message may be handled twice, so that it is when the worker
      of an ``executor`` has died with it; else that ends the connection
    - ``handover`` (default ``False``): where a worker is replaced, its connections go on in another
      one: a handler made there gets what ``__getstate__`` returns, and ``on_moved`` is called in place
      of ``setup`` and ``on_connect``

    With the server's ``executor``, ``handle_message`` runs there, and nothing else does. Out of process
    it is a static method, which gets the message alone.
    """

    _everserve = MovableSlot()

    codec: ClassVar[Any]
    pipeline_depth: int = 64
    outbox: int = 256
    outbox_policy: OutboxPolicy = "wait"
    idempotent: bool = False
    handover: bool = False

    def __init__(self, request: RequestT, client_address: Any, server: ServerT) -> None:
        self.request = request
        self.client_address = client_address
        self.server = server
        run_coroutine(self.setup(), "setup")
        try:
            self.handle()
        finally:
            conversation = self._everserve.conversation
            if conversation is None:
                run_coroutine(self.finish(), "finish")
            elif not conversation.parked:
                conversation.finish_handler()

    # -- hooks ---------------------------------------------------------------------------------

    def on_connect(self) -> Any:
        """A connection has come; called before its first message."""

    if TYPE_CHECKING:  # a method, a ``staticmethod``, a function: what may run elsewhere
        handle_message: Callable[..., Any]
    else:

        def handle_message(self, message: Any, /) -> Any:
            """Handle a message. Returns the reply; ``None`` for none; an iterator for several.

            Where messages are bytes, a list or a tuple is several replies too.
            """
            raise NotImplementedError(f"{type(self).__name__} has no handle_message()")

    def on_bad_message(self, error: FrameError) -> Any:
        """Bytes came that are no message, or one that is too long. By default ``error`` is raised.

        That ends the connection, and is reported as the peer's fault. Where this returns, its result
        is sent as a reply; then the connection goes on if ``error.resumes_at`` is set, else it ends.
        """
        raise error

    def on_disconnect(self) -> Any:
        """The connection has ended, or has failed; called once if ``on_connect`` was."""

    def on_moved(self) -> Any:
        """The connection has come from another worker; called before its next message.

        It is in no channel here. What cannot be pickled is made anew.
        """

    def __getstate__(self) -> Any:
        """What goes to another worker, by ``pickle``: by default all attributes of the program."""
        return state_of(self)

    def __setstate__(self, state: Any) -> None:
        """Take what ``__getstate__`` has returned. ``request`` is not there before ``on_moved``."""
        take_state(self, state)

    # -- for the program -----------------------------------------------------------------------

    def push(self, message: Any) -> bool:
        """Send ``message`` to the peer, from anywhere: another handler, thread or fiber.

        What is pushed leaves in order. False if it was dropped: the connection has ended, or its
        ``outbox`` is full and the policy is not ``"wait"``. To a datagram, this is one more reply.
        """
        conversation = self._everserve.conversation
        if conversation is None:
            _reply_to_datagram(self, message)
            return True
        sent: bool = conversation.push(self.codec.encode(message))
        return sent

    def disconnect(self) -> None:
        """End the connection, from anywhere. No further message is handled; what was pushed, and the
        reply of the message in progress, is still sent. A datagram has no connection.
        """
        conversation = self._everserve.conversation
        if conversation is not None:
            conversation.disconnect()

    @property
    def key(self) -> Any:
        """The key by which ``server.connections[key]`` finds this connection; ``None``: no key.

        Where another connection has the key, as of a peer that has come again, the later one is found.
        """
        conversation = self._everserve.conversation
        return None if conversation is None else conversation.key

    @key.setter
    def key(self, key: Any) -> None:
        conversation = self._everserve.conversation
        if conversation is ENDED:
            return  # no one can find it any more
        if conversation is None or conversation.host is None or conversation.connection is None:
            raise TypeError("only a connection of an everserve server has a key")
        conversation.host.give_key(conversation.connection, key)

    # -- the flow ------------------------------------------------------------------------------

    def handle(self) -> None:
        """Handle the messages of the connection until it ends, or waits for the next; or a datagram."""
        if not issubclass(type(self.request), socket.socket):
            _answer_datagram(self)
            return
        conversation = self._everserve.open_conversation(
            self.server, lambda host, entry, parking: conversation_of(self, host, entry, parking)
        )
        try:
            run_coroutine(self.on_connect(), "on_connect")
            conversation.begin()
        finally:
            if not conversation.parked:
                conversation.leave()


class LineRequestHandler(MessageRequestHandler[RequestT, ServerT]):
    """A message is a line, without its newline: ``bytes``, at most 64 KiB."""

    codec = Lines()


class FrameRequestHandler(MessageRequestHandler[RequestT, ServerT]):
    """A message comes after its length, four bytes in network order: ``bytes``, at most 16 MiB."""

    codec = Lengths(4)


class JSONRequestHandler(MessageRequestHandler[RequestT, ServerT]):
    """A message is a JSON value on a line of at most 64 KiB, and so is a reply."""

    codec = JSONLines()


def _answer_datagram(handler: MessageRequestHandler[Any, Any]) -> None:
    try:
        message = _message_of(handler.codec, handler.request[0])
    except FrameError as error:
        reply = run_coroutine(handler.on_bad_message(error), "on_bad_message")
    else:
        reply = run_coroutine(answer_of(handler, message), "handle_message")
    if reply is not None:
        for one in reply if is_several(handler.codec, reply) else (reply,):
            _reply_to_datagram(handler, one)


def _message_of(codec: Codec, data: bytes) -> Any:
    """The one message of a datagram, which may lack the ending."""
    ending = getattr(codec, "ending", b"")
    if not data.endswith(ending):
        data += ending
    found = codec.decode(data, 0)
    if found is None or found[1] != len(data):
        raise FrameError("a datagram is not exactly one message")
    return found[0]


def _reply_to_datagram(handler: MessageRequestHandler[Any, Any], message: Any) -> None:
    address = getattr(handler.request, "reply_to", None) or handler.client_address
    if not address:
        raise NoReplyAddressError("the sender has no address: it must bind its socket for a reply")
    handler.request[1].sendto(handler.codec.encode(message), address)
