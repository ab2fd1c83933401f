"""A few bytes that a process shares with the children it forks.

With them a parent shows that the server drains, a child requests a stop, and each child reports the
progress of its request.
"""

from __future__ import annotations

import ast
import json
import mmap
import struct
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from everserve.concurrency.strategy import Order
from everserve.events import DeadlineMissed, Failed, Finished, Opened, Refused, ServerEvent
from everserve.lifecycle.outcome import Outcome

__all__ = ["Note", "SharedOrders"]

_SHUTDOWN, _STOP = 1, 2
_WORD, _TEXT = 40, 200
"""Characters of a reason and of an error that are kept. One takes at most 12 bytes in JSON, so both fit
into the space below."""

_SIZE = 8192
_OUTCOME_AT, _PEER_AT, _PEER_END = 64, 4096, 4096 + 1024
"""The offsets of the parts of a note. The name of a Unix socket, 108 bytes, takes 435 as a literal."""


class SharedOrders:
    """Orders in shared memory: made before the first fork, freed with the last process."""

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
        """Write an order for the parent. The caller must then wake the parent."""
        self._memory[2:10] = struct.pack("d", grace or 0.0)
        self._memory[1] = _SHUTDOWN if grace is None else _STOP

    def take(self) -> Order | None:
        """Return the order, and remove it."""
        command, self._memory[1] = self._memory[1], 0
        if not command:
            return None
        (grace,) = struct.unpack("d", self._memory[2:10])
        return Order(None if command == _SHUTDOWN else grace)


class Note:
    """The report of a child on its one request. Made before the fork; the parent closes it.

    The child writes, and the parent may read at any time: the progress, the peer's address, and at the
    end the outcome.
    """

    ENDS = (Refused, Failed, Finished, DeadlineMissed)
    """The events that become the ``outcome``, for the parent to emit."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SIZE)
        self._outcome = Outcome()

    @property
    def handshaken(self) -> bool:
        """True once the TLS handshake is over."""
        return self._memory[0] != 0

    @handshaken.setter
    def handshaken(self, handshaken: bool) -> None:
        self._memory[0] = handshaken

    @property
    def opened(self) -> bool:
        """True once the handler has begun."""
        return self._memory[1] != 0

    def peer(self, known: Any) -> Any:
        """The peer's address: ``known``, unless the child has read another one (in a PROXY header)."""
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

    def take_down(self, event: ServerEvent) -> None:
        """In the child: note the contents of ``event``."""
        if isinstance(event, (Opened, *self.ENDS)):
            self._write_peer(event.peer)
        if isinstance(event, Opened):
            self._memory[1] = True
        if not isinstance(event, self.ENDS):
            return  # no outcome yet: the child may still be killed
        match event:
            case DeadlineMissed():
                self._outcome = replace(
                    self._outcome, missed=event.deadline[:_WORD], is_cut=event.is_cut
                )
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
        """In the parent: the outcome; ``None`` if the child noted none."""
        (size,) = struct.unpack("H", self._memory[2:4])
        if not size:
            return None
        try:
            return Outcome(**json.loads(self._memory[_OUTCOME_AT : _OUTCOME_AT + size]))
        except (ValueError, TypeError):  # it was killed between the two writes
            return None

    def close(self) -> None:
        """Free the memory."""
        self._memory.close()
