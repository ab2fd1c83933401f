"""The conversations of a server with an ``executor``: there ``handle_message`` runs, nothing else does.

In a fiber a conversation waits for it as for anything. In a pool it is parked, and has no thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from everserve.admission.host import Host, host_of_server
from everserve.fibers.engines import current
from everserve.messages.calls import END, Calls
from everserve.messages.engine import Conversation
from everserve.wire.codec import encode_many, is_several

if TYPE_CHECKING:
    from everserve.executors.execution import Execution

__all__ = ["ExecutedConversation", "ThreadlessConversation", "answer_of", "conversation_of"]


def conversation_of(handler: Any, host: Host | None, connection: Any, parking: Any) -> Conversation:
    """The conversation of a handler, by where its messages are handled."""
    execution = None if host is None else host.execution
    if execution is None:
        return Conversation(handler, host, connection, parking)
    is_threadless = parking is not None and current() is None
    kind = ThreadlessConversation if is_threadless else ExecutedConversation
    return kind(handler, host, connection, parking, execution)


def answer_of(handler: Any, datagram: Any) -> Any:
    """The reply to a datagram."""
    host = host_of_server(handler.server)
    execution = None if host is None else host.execution
    if execution is None:
        return handler.handle_message(datagram)
    return Calls(execution, handler)(datagram)


class ExecutedConversation(Conversation):
    """Waits for each message in the fiber, or the thread, that has its connection."""

    __slots__ = ("_calls", "_execution")

    def __init__(
        self, handler: Any, host: Any, connection: Any, parking: Any, execution: Execution
    ) -> None:
        super().__init__(handler, host, connection, parking)
        self._execution = execution
        self._calls: Calls | None = None

    def call_of(self, handler: Any) -> Callable[[Any], Any]:
        """The calls in the executor."""
        self._calls = calls = Calls(self._execution, handler, self.connection)
        return calls

    def serve(self) -> bool:
        """As every conversation; while it is parked it keeps no calls."""
        try:
            return super().serve()
        finally:
            self._calls = None

    def abandon(self) -> None:
        """Wait no longer for the message that runs in the executor."""
        calls = self._calls
        if calls is not None:
            calls.abandon()


class ThreadlessConversation(ExecutedConversation):
    """Has no thread while a message is in the executor; a thread of the pool goes on after it."""

    __slots__ = ()

    def call_of(self, handler: Any) -> Callable[[Any], Any]:
        """The calls of the messages in progress, which may have begun in another thread."""
        return self._calls or super().call_of(handler)

    def serve(self) -> bool:
        """As every conversation; true also while a message runs."""
        replies = self.replies
        if replies is None:
            calls = self.call_of(self.handler)
            self.replies = replies = _RepliesToCome(self.handler.codec, self.outbox, calls)
        try:
            waits = self._go_on(replies) or replies.future is not None
        except BaseException:
            self.replies = self._calls = None
            raise
        if replies.future is None:
            self.replies = self._calls = None
        return waits

    def _go_on(self, replies: _RepliesToCome) -> bool:
        """Go on where it was left. True if nothing is there now."""
        handler, calls = self.handler, self.call_of(self.handler)
        if replies.future is not None:
            replies.go_on()
            if replies.stopped or not self.inbox.take(b"", handler, replies, calls):
                return False
        return self.waits_after(self.inbox.serve(handler, replies, calls))

    def park(self) -> None:
        """Leave it until its message has been handled, or something comes."""
        replies = self.replies
        if replies is None:
            super().park()
            return
        self.parked = True
        self.connection.runner = None
        replies.future.add_done_callback(lambda _: self.parking.resume(self))


class _RepliesToCome:
    """Replies, each sent when it comes. ``stopped``: no more messages are handled, for now or for good.

    ``future``: that of the message in progress, for which no thread waits.
    """

    __slots__ = ("_calls", "_codec", "_is_over", "_left", "_outbox", "_steps", "future")

    def __init__(self, codec: Any, outbox: Any, calls: Any) -> None:
        self._codec = codec
        self._outbox = outbox
        self._calls: Calls = calls
        self._left: Iterator[Any] = iter(())  # the messages that wait for the one in progress
        self._steps: Iterator[Any] | None = None  # the replies of the one in progress
        self._is_over = False
        self.future: Future[Any] | None = None

    @property
    def stopped(self) -> bool:
        return self._is_over or self.future is not None

    @stopped.setter
    def stopped(self, is_over: bool) -> None:
        self._is_over = is_over

    def answer(self, messages: Sequence[Any], handle: object) -> None:
        """Handle messages, until one is not done at once."""
        self._left = iter(messages)
        self.go_on()

    def go_on(self) -> None:
        """Send the reply that has come, and handle what is left."""
        future, self.future = self.future, None
        while not self._is_over or future is not None:
            if future is not None:
                self._take(self._calls.result(future))
            future = None if self._is_over else self._next()
            if future is None:
                return
            if not future.done():
                self.future = future
                return

    def _next(self) -> Future[Any] | None:
        if self._steps is not None:
            return self._calls.step(self._steps)
        message = next(self._left, END)
        return None if message is END else self._calls.start(message)

    def _take(self, reply: Any) -> None:
        if self._steps is not None:
            if reply is END:
                self._steps = None
            else:
                self._send([reply])
        elif self._calls.takes_steps(reply):
            self._steps = reply
        else:
            self.add(reply)

    def add(self, reply: Any) -> None:
        """Send a reply, or several."""
        replies = list(reply) if is_several(self._codec, reply) else [reply]
        if reply is not None and replies:
            self._send(replies)

    def _send(self, messages: list[Any]) -> None:
        self._outbox.send(encode_many(self._codec, messages))

    def flush(self) -> None:
        """Nothing is held back."""
