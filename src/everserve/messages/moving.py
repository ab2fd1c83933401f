"""The connection of a message handler on its way to another process: packed there, unpacked here.

A ``Departure`` has a conversation packed when it waits for a message; the accept loop of the other
process has what was unpacked ``begin``. The bytes are pickled, so they may come from a worker alone.
"""

from __future__ import annotations

import pickle
import socket
from time import monotonic
from typing import Any, NamedTuple

from everserve.handlers.context import ContextSlot
from everserve.messages.engine import run_coroutine
from everserve.messages.executed import conversation_of
from everserve.server.arrivals import NotMovable

__all__ = ["MovableSlot", "state_of", "take_state"]

FORMAT = 1
"""Of the bytes: another everserve may have packed them."""

_PROTOCOL = 5
"""Of pickle: known to each Python that runs everserve."""

_OWN = ("_everserve", "request", "client_address", "server")
"""The attributes of a handler that its other process sets anew."""


class _Contents(NamedTuple):
    """What is packed. Times are those of ``time.monotonic``, a clock of the whole machine."""

    state: Any
    client_address: Any
    key: Any
    rest: bytes | None
    needed: int
    peer: Any
    origin: Any
    proxy: Any
    accepted: float
    began: float
    packed: float


class Moving:
    """A connection that has come: an ``Arrival`` of ``server.arrivals``.

    ``late``: what was pushed in the other process after it was packed.
    """

    def __init__(self, handler: Any, contents: _Contents, request: socket.socket) -> None:
        self.request: Any = request
        self.client_address = contents.client_address
        self.peer, self.origin, self.proxy = contents.peer, contents.origin, contents.proxy
        self.accepted, self.began = contents.accepted, contents.began
        self.late = b""
        self._handler = handler
        self._key = contents.key
        self._rest, self._needed = contents.rest, contents.needed
        self._packed = contents.packed

    def pause(self) -> float:
        """Seconds since it was packed."""
        return max(0.0, monotonic() - self._packed)

    def close(self) -> None:
        """Close the socket."""
        self.request.close()

    def begin(self, request: Any) -> None:
        """Do what the constructor of a handler and ``handle`` do, but for ``on_connect``."""
        handler, self._handler, self.request = self._handler, None, None  # no circle is left
        handler.request = request
        conversation: Any = handler._everserve.open_conversation(
            handler.server,
            lambda host, entry, parking: conversation_of(handler, host, entry, parking),
        )
        try:
            self._begin(handler, conversation)
        finally:
            if not conversation.parked:
                conversation.finish()

    def _begin(self, handler: Any, conversation: Any) -> None:
        conversation.inbox.take_unread(self._rest, self._needed)
        if self._key is not None:
            conversation.host.give_key(conversation.connection, self._key)
        if self.late:
            conversation.outbox.push(self.late, 1, "wait")
        run_coroutine(handler.on_moved(), "on_moved")
        conversation.begin()


class MovableSlot(ContextSlot):
    """The private attribute of ``MessageRequestHandler``: a ``Slot`` of ``server.arrivals``."""

    def moves(self, kind: type) -> bool:
        """True if the class has ``handover``."""
        return getattr(kind, "handover", False) is True

    def pack(self, conversation: Any) -> bytes:
        """The handler of a conversation, and what is known of its connection. Raises ``NotMovable``."""
        handler, connection = conversation.handler, conversation.connection
        rest, needed = conversation.inbox.unread()
        try:
            contents = _Contents(
                handler.__getstate__(),
                handler.client_address,
                conversation.key,
                rest,
                needed,
                connection.peer,
                connection.origin,
                connection.proxy,
                connection.started,
                connection.limited_since,
                monotonic(),
            )
            return pickle.dumps((FORMAT, tuple(contents)), _PROTOCOL)
        except Exception as error:  # whatever the program's own method raises
            raise NotMovable("state") from error

    def unpack(self, kind: type, server: Any, data: bytes, descriptor: int) -> Moving:
        """Make the handler anew. Raises ``NotMovable``. *Ownership*: the descriptor is the result's."""
        try:
            form, found = pickle.loads(data)
            if form != FORMAT:
                raise ValueError(f"format {form}, where {FORMAT} was expected")
            contents = _Contents(*found)
            handler: Any = object.__new__(kind)
            handler.client_address, handler.server = contents.client_address, server
            handler.__setstate__(contents.state)
        except Exception as error:  # whatever the program's own method raises
            raise NotMovable("state") from error
        return Moving(handler, contents, socket.socket(fileno=descriptor))


def state_of(handler: Any) -> Any:
    """The program's own attributes of a handler, as ``object.__getstate__`` returns them."""
    state = object.__getstate__(handler)
    own, slots = state if isinstance(state, tuple) else (state, None)
    own = {name: value for name, value in (own or {}).items() if name not in _OWN}
    return own if slots is None else (own, slots)


def take_state(handler: Any, state: Any) -> None:
    """Set what ``state_of`` has returned."""
    own, slots = state if isinstance(state, tuple) else (state, {})
    vars(handler).update(own)
    for name, value in slots.items():
        setattr(handler, name, value)
