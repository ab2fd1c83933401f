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
        self._members: dict[Any, None] = {}  # sessions, in the order in which they joined
        self._lock = RLock()  # one that may be held while its holder waits, in every strategy

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, member: object) -> bool:
        return _session_of(member) in self._members

    def join(self, member: Any) -> None:
        """Add a connection; once, however often it joins. One that has ended is not added.

        Raises ``TypeError`` for the handler of a datagram, which has no connection.
        """
        session = _session_of(member)
        if session is None:
            raise TypeError(
                f"{type(member).__name__} has no connection: only streams join a channel"
            )
        with self._lock:
            if not session.outbox.is_closed:
                self._members[session] = None
                session.channels = [*(session.channels or ()), self]

    def leave(self, member: Any) -> None:
        """Remove a connection, if it is a member."""
        self.remove(_session_of(member))

    def remove(self, session: Any) -> None:
        """Remove a session, as its end does."""
        with self._lock:
            self._members.pop(session, None)

    def send(self, message: Any, *, but: Any = None) -> int:
        """Push ``message`` to all members except ``but``; returns how many it was pushed to.

        It is encoded once for each codec. A member whose ``outbox`` is full is treated as its
        ``outbox_policy`` says: with ``wait``, all wait for it.
        """
        left_out = None if but is None else _session_of(but)
        encoded: dict[int, bytes] = {}
        count = 0
        with self._lock:
            for session in tuple(self._members):
                if session is left_out:
                    continue
                codec = session.handler.codec
                if id(codec) not in encoded:
                    encoded[id(codec)] = codec.encode(message)
                count += session.push(encoded[id(codec)])
        return count


def _session_of(member: Any) -> Any:
    """The session of a handler, or of an entry of ``server.connections``."""
    own = getattr(member, "_everserve", None)
    return getattr(member if own is None else own, "session", None)
