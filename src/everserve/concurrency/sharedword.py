"""A few bytes that a process shares with the children it forks.

``ForkingMixIn`` tells its children that the server drains, and they ask it to stop; each child notes
how its request goes, for the parent to tell it.
"""

from __future__ import annotations

import ast
import json
import mmap
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from time import monotonic
from typing import Any, NamedTuple

from everserve.admission.outcome import Outcome
from everserve.events import DeadlineMissed, Event, Failed, Finished, Opened, Refused
from everserve.sockets.counted import CountedSocket
from everserve.sockets.tcpinfo import Traffic

__all__ = ["Note", "Request", "SharedWord"]

_SHUTDOWN, _STOP = 1, 2
_WORD, _TEXT = 40, 200
"""Characters of a reason and of an error that are told: with 12 bytes each, as JSON has the worst of
them, they fit into the space below."""

_SIZE = 8192
_TRAFFIC = struct.Struct("=dQQ??")  # last moved, received, sent, sending now, counted at all
_TRAFFIC_AT, _OUTCOME_AT, _PEER_AT, _PEER_END = 8, 64, 4096, 4096 + 1024
_TRAFFIC_END = _TRAFFIC_AT + _TRAFFIC.size
"""Where what stands in a note. The name of a Unix socket, of 108 bytes, takes 435 as a literal."""


class Request(NamedTuple):
    """What a child asks for: a ``stop(grace)``, or a ``shutdown()`` where ``grace`` is ``None``."""

    grace: float | None


class SharedWord:
    """Made before the first fork; lives as long as the processes that hold it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 10)

    @property
    def draining(self) -> bool:
        """True once the server drains."""
        return self._memory[0] != 0

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._memory[0] = draining

    def ask(self, grace: float | None) -> None:
        """Leave a request for the parent, who must then be woken."""
        self._memory[2:10] = struct.pack("d", grace or 0.0)
        self._memory[1] = _SHUTDOWN if grace is None else _STOP

    def take(self) -> Request | None:
        """The request that was left, once."""
        command, self._memory[1] = self._memory[1], 0
        if not command:
            return None
        (grace,) = struct.unpack("d", self._memory[2:10])
        return Request(None if command == _SHUTDOWN else grace)


class Note:
    """What a child tells of its one request. Made before the fork; the parent closes it.

    The child writes, and the parent may read at any time: how far it is, who the peer is, what has
    moved, and at the end the ``outcome``.
    """

    ENDS = (Refused, Failed, Finished, DeadlineMissed)
    """The events that become the ``outcome``, for the parent to emit."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SIZE)
        self._outcome = Outcome()

    @property
    def greeted(self) -> bool:
        """True once the TLS handshake is over."""
        return self._memory[0] != 0

    @greeted.setter
    def greeted(self, greeted: bool) -> None:
        self._memory[0] = greeted

    @property
    def opened(self) -> bool:
        """True once the handler has begun."""
        return self._memory[1] != 0

    def peer(self, known: Any) -> Any:
        """Who the peer is: ``known``, unless the child has learnt better (from a PROXY header)."""
        (size,) = struct.unpack("H", self._memory[_PEER_AT : _PEER_AT + 2])
        with suppress(ValueError, SyntaxError):
            if size:
                return ast.literal_eval(self._memory[_PEER_AT + 2 : _PEER_AT + 2 + size].decode())
        return known

    def _write_peer(self, peer: Any) -> None:
        text = repr(peer).encode() if isinstance(peer, tuple | str | bytes) else b""
        if len(text) <= _PEER_END - _PEER_AT - 2:
            self._memory[_PEER_AT + 2 : _PEER_AT + 2 + len(text)] = text
            self._memory[_PEER_AT : _PEER_AT + 2] = struct.pack("H", len(text))

    def count(self, inner: socket.socket) -> CountedSocket:
        """For the child: a socket that counts what moves, so that the parent sees it."""
        return _SharingSocket(inner, self)

    def write_traffic(self, moved: float, received: int, sent: int, sending: bool) -> None:
        """Note what has moved; ``moved`` is when (monotonic: the same clock in all processes)."""
        # Not pack_into, which first writes zeros: the parent may read at the same moment.
        self._memory[_TRAFFIC_AT:_TRAFFIC_END] = _TRAFFIC.pack(moved, received, sent, sending, True)

    def traffic(self) -> Traffic | None:
        """For the parent: what has moved; ``None`` if the child does not count."""
        try:
            packed = self._memory[_TRAFFIC_AT:_TRAFFIC_END]
        except ValueError:  # the note was closed meanwhile
            return None
        moved, received, sent, sending, counted = _TRAFFIC.unpack(packed)
        return Traffic(monotonic() - moved, received, sent, sending) if counted else None

    def take_down(self, event: Event) -> None:
        """For the child: note what ``event`` says."""
        if isinstance(event, (Opened, *self.ENDS)):
            self._write_peer(event.peer)
        if isinstance(event, Opened):
            self._memory[1] = True
        if not isinstance(event, self.ENDS):
            return  # a child that is killed after it has begun has noted no outcome
        match event:
            case DeadlineMissed():
                self._outcome = replace(self._outcome, missed=event.deadline[:_WORD])
            case Refused():
                error = "" if event.error is None else repr(event.error)[:_TEXT]
                self._outcome = replace(self._outcome, refused=event.reason[:_WORD], error=error)
            case Failed():
                self._outcome = replace(
                    self._outcome,
                    failed=True,
                    error=repr(event.error)[:_TEXT],
                    peer_gone=event.peer_gone,
                )
        text = json.dumps(asdict(self._outcome)).encode()
        self._memory[_OUTCOME_AT : _OUTCOME_AT + len(text)] = text
        self._memory[2:4] = struct.pack("H", len(text))  # last: the child may be killed meanwhile

    def read(self) -> Outcome | None:
        """For the parent: what was noted; ``None`` if the child did not come to that."""
        (size,) = struct.unpack("H", self._memory[2:4])
        if not size:
            return None
        return Outcome(**json.loads(self._memory[_OUTCOME_AT : _OUTCOME_AT + size]))

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()


class _SharingSocket(CountedSocket):
    """A ``CountedSocket`` that notes its counts for another process: 1 us a call."""

    __slots__ = ("_note",)

    def __init__(self, inner: socket.socket, note: Note) -> None:
        super().__init__(inner)
        self._note = note
        self._share()

    def _share(self) -> None:
        self._note.write_traffic(self._moved, self._received, self._sent, self._sending > 0)

    def _came(self, count: int) -> int:
        super()._came(count)
        self._share()
        return count

    def _goes(self, send: Callable[..., int], *arguments: Any) -> int:
        def share_and_send(*arguments: Any) -> int:
            self._share()  # that it waits
            return send(*arguments)

        try:
            return super()._goes(share_and_send, *arguments)
        finally:
            self._share()
