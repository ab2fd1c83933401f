"""A few bytes that a process shares with the children it forks.

With them a parent shows that the server drains, a child requests a stop, and each child reports the
progress of its request. A child may be killed at any moment, and a handler may write anywhere: what is
read here is checked like the bytes of a peer, and what is not valid was not written.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
import zlib
from dataclasses import asdict, fields, replace
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
_OUTCOME, _PEER = slice(64, 4096), slice(4096, 4096 + 1024)
"""The parts of a note. The name of a Unix socket, 108 bytes, takes at most 660 in JSON."""

_HEAD = struct.Struct("<HI")
"""Before each part: its length, and its checksum."""


_OUTCOME_TYPES = {field.name: type(field.default) for field in fields(Outcome)}


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
        if command == _SHUTDOWN:
            return Order(None)
        return Order(grace) if command == _STOP and math.isfinite(grace) and grace >= 0 else None


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
        match self._read(_PEER):
            case ["tuple", *parts] if all(type(part) in (str, int) for part in parts):
                return tuple(parts)
            case ["str", str(text)]:
                return text
            case ["bytes", str(text)] if text.isascii() or max(text) <= "\xff":
                return text.encode("latin-1")
        return known

    def _write_peer(self, peer: Any) -> None:
        match peer:
            case tuple() if all(type(part) in (str, int) for part in peer):
                self._write(_PEER, ["tuple", *peer])
            case str():
                self._write(_PEER, ["str", peer])
            case bytes():
                self._write(_PEER, ["bytes", peer.decode("latin-1")])

    def _write(self, part: slice, value: Any) -> None:
        text = json.dumps(value).encode()
        data = _HEAD.pack(len(text), zlib.crc32(text)) + text if len(text) < _SIZE else b""
        if data and len(data) <= part.stop - part.start:
            self._memory[part.start : part.start + len(data)] = data

    def _read(self, part: slice) -> Any:
        """What is in a part, with lists for tuples; ``None`` if it is empty or damaged."""
        data = self._memory[part]
        size, checksum = _HEAD.unpack_from(data)
        text = data[_HEAD.size : _HEAD.size + size]
        if not text or zlib.crc32(text) != checksum:
            return None
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return None

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
        self._write(_OUTCOME, asdict(self._outcome))

    def read(self) -> Outcome | None:
        """In the parent: the outcome; ``None`` if the child noted none."""
        found = self._read(_OUTCOME)
        if not isinstance(found, dict) or found.keys() != _OUTCOME_TYPES.keys():
            return None
        if any(type(found[name]) is not kind for name, kind in _OUTCOME_TYPES.items()):
            return None
        return Outcome(**found)

    def close(self) -> None:
        """Free the memory."""
        self._memory.close()
