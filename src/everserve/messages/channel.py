"""``Channel``: connections that get the same messages."""

from __future__ import annotations

from typing import Any

from everserve.fibers.locks import RLock

__all__ = ["Channel"]


class Channel:
    """A set of connections: what is sent to it is pushed to each of them, in the same order.

    A member is a message handler, or an entry of ``server.connections``; it leaves when its connection
    ends. ``len(channel)`` is how many there are. All methods may be called from any thread or fiber of
    the process. It may also be a global, made before there is a server.
    """

    def __init__(self) -> None:
        self._members: dict[Any, None] = {}  # conversations, in the order in which they joined
        self._lock = RLock()  # one that may be held while its holder waits, in every strategy

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, member: object) -> bool:
        return _conversation_of(member) in self._members

    def join(self, member: Any) -> None:
        """Add a connection; once, however often it joins. One that has ended is not added.

        Raises ``TypeError`` for the handler of a datagram, which has no connection.
        """
        conversation = _conversation_of(member)
        if conversation is None:
            raise TypeError(
                f"{type(member).__name__} has no connection: only streams join a channel"
            )
        with self._lock:
            if not conversation.outbox.is_closed:
                self._members[conversation] = None
                conversation.channels = [*(conversation.channels or ()), self]

    def leave(self, member: Any) -> None:
        """Remove a connection, if it is a member."""
        self.remove(_conversation_of(member))

    def remove(self, conversation: Any) -> None:
        """Remove a conversation, as its end does."""
        with self._lock:
            self._members.pop(conversation, None)

    def send(self, message: Any, *, but: Any = None) -> int:
        """Push ``message`` to all members except ``but``; returns how many it was pushed to.

        It is encoded once for each codec. A member whose ``outbox`` is full is treated as its
        ``outbox_policy`` says: with ``wait``, all wait for it.
        """
        left_out = None if but is None else _conversation_of(but)
        encoded: dict[int, bytes] = {}
        count = 0
        with self._lock:
            for conversation in tuple(self._members):
                if conversation is left_out:
                    continue
                codec = conversation.handler.codec
                if id(codec) not in encoded:
                    encoded[id(codec)] = codec.encode(message)
                count += conversation.push(encoded[id(codec)])
        return count


def _conversation_of(member: Any) -> Any:
    """The conversation of a handler, or of an entry of ``server.connections``."""
    own = getattr(member, "_everserve", None)
    return getattr(member if own is None else own, "conversation", None)
