"""The replies to messages that came together: sent together, or when their fiber waits. The reference.

A conversation makes one while it handles messages; `_replies.pyx` is the same, compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

from everserve.fibers import engines
from everserve.fibers.carrying import Carrier, carrier_for
from everserve.fibers.fiber import Buffered, Fiber
from everserve.wire.codec import encode_many, is_several

if TYPE_CHECKING:
    from everserve.messages.outbox import Outbox

__all__ = ["Replies"]

LONGEST_HOLD: Final = 0.001  # seconds for which a thread holds a reply back while it handles others


class Replies(Buffered):
    """Replies, in order, for an outbox; an error of it in a wait is raised at the next.

    In a fiber they are sent before it waits for anything. A thread sends them after a millisecond, and
    each message of an iterator at once, as it cannot know how long the next one takes.
    """

    __slots__ = (
        "_began",
        "_carrier",
        "_codec",
        "_error",
        "_holder",
        "_is_eager",
        "_outbox",
        "_waiting",
        "stopped",
    )

    def __init__(self, codec: Any, outbox: Outbox) -> None:
        self._codec = codec
        self._outbox = outbox
        self._waiting: list[Any] = []
        self._error: OSError | None = None
        self._holder: Fiber | None = None  # the fiber that sends them when it waits
        self._is_eager = engines.current() is None
        self._began = 0.0
        self._carrier: Carrier | None = None  # of coroutines
        self.stopped = False  # no more messages are handled

    def answer(self, messages: Sequence[Any], handle: Callable[[Any], Any]) -> None:
        """Handle `messages`, one after the other, and send the replies, also those before an error."""
        self._began = monotonic()
        try:
            for message in messages:
                self._hold()
                reply = handle(message)
                if type(reply) is bytes:
                    self._waiting.append(reply)
                elif reply is not None:
                    self.add(reply)
                if self._is_eager and monotonic() - self._began > LONGEST_HOLD:
                    self.flush()
                if self.stopped:
                    break
        finally:
            self.flush()
            if self._holder is not None:
                self._holder.drop_buffered(self)
                self._holder = None

    def add(self, reply: Any) -> None:
        """Add a reply that is no `bytes`: an object of the codec, several messages, or a coroutine."""
        if type(reply) is CoroutineType:
            reply = self._await(reply)
        if not is_several(self._codec, reply):
            if reply is not None:
                self._waiting.append(reply)
            return
        self._add_several(reply, at_once=self._is_eager and hasattr(reply, "__next__"))

    def _await(self, coroutine: Any) -> Any:
        if self._carrier is None:
            self._carrier = carrier_for(coroutine, "handle_message")
        return self._carrier.drive(coroutine)

    def end(self) -> None:
        """No more come: end the task in which coroutines ran."""
        if self._carrier is not None:
            self._carrier.end()

    def _add_several(self, reply: Iterable[Any], *, at_once: bool) -> None:
        for message in reply:
            self._hold()
            self._waiting.append(message)
            if at_once:
                self.flush()

    def _hold(self) -> None:
        """Have them sent when this fiber waits."""
        fiber = engines.current()
        if fiber is not None and fiber is not self._holder:
            self._holder = fiber
            fiber.add_buffered(self)

    def flush(self) -> None:
        """Send them, and wait for that. Raises the error of an earlier send too."""
        if self._error is not None:
            error, self._error = self._error, None
            self._waiting = []
            raise error
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._outbox.send(encode_many(self._codec, waiting))

    def flush_quietly(self) -> bool:
        """Send them before the fiber waits; True if that waited itself."""
        self._holder = None
        if not self._waiting:
            return False
        fiber = engines.current()
        before = 0 if fiber is None else fiber.hub.switches
        try:
            self.flush()
        except OSError as error:
            self._error = error
        return fiber is not None and bool(fiber.hub.switches != before)
