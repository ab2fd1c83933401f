# cython: binding=False, annotation_typing=False
"""The conversation of a message handler: it reads, decodes, calls the handler and sends.

A handler makes one for its connection. Where the strategy can, it is parked while nothing comes, and a
fiber or a thread resumes it. ``call_of`` says where ``handle_message`` runs.
One source for both engines: `_conversation` is this file, compiled, with the types of
`_conversation.pxd`.
"""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable
from threading import get_ident
from typing import Any

from everserve.fibers.engines import FiberSocket, current
from everserve.fibers.exits import began_in_signal_handler
from everserve.messages.ended import ENDED

__all__ = ["Conversation"]

COMPILED = __name__ == "everserve.messages._conversation"

_ROOM = "everserve.messages._" if COMPILED else "everserve.messages."
Inbox: Any = importlib.import_module(f"{_ROOM}inbox").Inbox
Outbox: Any = importlib.import_module(f"{_ROOM}outbox").Outbox
Replies: Any = importlib.import_module(f"{_ROOM}replies").Replies
_CARRYING = "everserve.fibers._carrying" if COMPILED else "everserve.fibers.carrying"
run_coroutine: Any = importlib.import_module(_CARRYING).run_coroutine


class Conversation:
    """What a message handler and its connection share.

    ``parked``: nothing runs it now; ``fresh``: it began while the server drains, and may still wait for
    its first message.

    ``key``: that of the connection; ``channels``: those that it has joined; ``replies``: those of the
    messages in progress. ``request`` and ``context`` are kept for the flow while it is parked.
    """

    __slots__ = (
        "channels",
        "connection",
        "context",
        "fresh",
        "handler",
        "host",
        "inbox",
        "key",
        "outbox",
        "parked",
        "replies",
        "request",
    )

    def __init__(self, handler: Any, host: Any, connection: Any, parking: Any) -> None:
        self.handler = handler
        self.host = host
        self.connection = connection
        sock = handler.request
        fiber = current() if type(sock) is FiberSocket else None
        hub = None if fiber is None else fiber.hub
        self.inbox = Inbox(sock, hub, parking)
        self.outbox = Outbox(sock, hub)
        self.parked = False
        self.fresh = parking is not None and bool(parking.draining)
        self.key: Any = None
        self.channels: list[Any] | None = None
        self.replies: Any = None
        self.request: Any = None
        self.context: Any = None

    @property
    def client_address(self) -> Any:
        """The peer's address, as the handler has it."""
        return self.handler.client_address

    @property
    def parking(self) -> Any:
        """Where it waits between messages; None if a thread or fiber waits with it."""
        return self.inbox.parking

    @property
    def is_between_messages(self) -> bool:
        """True unless the first part of a message has come, and not yet all of it."""
        return self.inbox.rest is None

    # -- in --------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Handle messages until the end; or until nothing is there, and it can be ``parked``."""
        self.parked = self.serve()

    def resume(self) -> None:
        """Go on after it was parked: something has come, or the server drains."""
        self.parked = False
        self.connection.runner = get_ident() if self.inbox.hub is None else id(current())
        waits = False
        try:
            try:
                waits = self.serve()
            finally:
                if not waits:
                    self.finish()
        except BaseException as error:
            self.host.conversation_ended(self, error)
            if not isinstance(error, Exception) or began_in_signal_handler(error):
                raise
        else:
            if waits:
                self.park()
            else:
                self.host.conversation_ended(self, None)

    def park(self) -> None:
        """Leave it until something comes: from here on another fiber or thread may run it."""
        self.parked = True
        self.connection.runner = None
        try:
            self.inbox.parking.park(self)
        except OSError as error:  # the kernel has no memory to watch it
            self.finish()
            self.host.conversation_ended(self, error)

    def disconnect(self) -> None:
        """End the stream after what has been sent: no more messages are handled. From anywhere."""
        replies = self.replies
        if replies is not None:
            replies.stopped = True
        if self.connection is not None:
            self.connection.end_reading()
        else:
            self.inbox.sock.shutdown(socket.SHUT_RD)

    def abandon(self) -> None:
        """The connection was cut: wait for nothing but the peer, which has gone. From anywhere."""

    def __call__(self) -> None:
        """Resume: what is parked is the conversation itself, as a bound method takes 0.1 KB more."""
        self.resume()

    def leave(self) -> None:
        """The stream is over, or has failed: send what is left, and take nothing more."""
        self.withdraw()
        try:
            run_coroutine(self.handler.on_disconnect(), "on_disconnect")
        finally:
            self.outbox.close()

    def finish(self) -> None:
        """End the handler, as its constructor does where it was never parked."""
        try:
            self.leave()
        finally:
            self.finish_handler()

    def finish_handler(self) -> None:
        """Call the last hook; the handler refers to this no more."""
        try:
            run_coroutine(self.handler.finish(), "finish")
        finally:
            self.handler._everserve.conversation = ENDED

    def withdraw(self) -> None:
        """Be found by no one any more: neither in a channel nor by its key."""
        for channel in self.channels or ():
            channel.remove(self)
        self.channels = None
        if self.key is not None:
            self.host.forget_key(self.connection)

    def move_away(self) -> None:
        """It goes on in another process; the handler refers to this no more."""
        self.withdraw()
        self.handler._everserve.conversation = ENDED

    def call_of(self, handler: Any) -> Callable[[Any], Any]:
        """What is called with each message, and returns the reply: here ``handle_message`` runs."""
        call: Callable[[Any], Any] = handler.handle_message
        return call

    def serve(self) -> bool:
        """Handle what comes. False at the end of the stream; true if nothing is there now."""
        handler = self.handler
        self.replies = replies = Replies(handler.codec, self.outbox)
        try:
            return self.waits_after(self.inbox.serve(handler, replies, self.call_of(handler)))
        finally:
            self.replies = None
            replies.end()

    def waits_after(self, served: bool | None) -> bool:
        """True if it waits for more, by what ``Inbox.serve`` has returned."""
        if served is False:
            return False
        if not self.inbox.parking.draining or (self.fresh and not served):
            return True
        departs: bool = self.inbox.parking.keeps(self)
        return departs

    # -- out -------------------------------------------------------------------------------------

    def push(self, data: bytes) -> bool:
        """Send encoded bytes soon, or as the policy of the handler says. False if they are not sent."""
        handler = self.handler
        if self.outbox.push(data, handler.outbox, handler.outbox_policy):
            return True
        if handler.outbox_policy == "disconnect" and not self.outbox.is_closed:
            self.cut()
        return False

    def cut(self) -> None:
        """Disconnect: the conversation sees the end of its stream."""
        if self.connection is not None:
            self.connection.cut()
        else:
            self.inbox.sock.shutdown(socket.SHUT_RDWR)
