"""Connections in progress by peer: which has the most, so that a cut to make room hits the right one.

``AdmissionControl`` has one of the connections (``overload = "shed-idle"``) and one of the handshakes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice
from typing import Any

from everserve.admission.limits import key_of

__all__ = ["Crowd"]


class Crowd:
    """A set of connections, each under its peer. Each method takes O(1) time; any thread may call it.

    What has no network counts as one peer.
    """

    def __init__(self) -> None:
        self._keys: dict[Any, bytes | None] = {}
        self._groups: dict[bytes | None, dict[Any, None]] = {}
        self._sizes: dict[int, dict[bytes | None, None]] = {}  # the peers with so many
        self._most = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, connection: object) -> bool:
        return connection in self._keys

    def add(self, connection: Any, address: Any) -> None:
        """Add a connection of the peer at ``address``, once."""
        key = key_of(address)
        with self._lock:
            if connection in self._keys:
                return
            self._keys[connection] = key
            group = self._groups.setdefault(key, {})
            group[connection] = None
            self._move(key, len(group) - 1, len(group))

    def remove(self, connection: Any) -> None:
        """Remove a connection, if it is there."""
        with self._lock:
            if connection not in self._keys:
                return
            key = self._keys.pop(connection)
            group = self._groups[key]
            del group[connection]
            self._move(key, len(group) + 1, len(group))
            if not group:
                del self._groups[key]

    def candidates(self, address: Any, most: int) -> list[Any]:
        """Up to ``most`` connections, the oldest first, of which one may make room for a newcomer.

        They are of the peers that have the most; where the newcomer's own peer at ``address`` has as
        many, of that peer: no one can take away more than one place from others who have no more.
        """
        key = key_of(address)
        with self._lock:
            own = self._groups.get(key, {})
            if own and len(own) >= self._most:
                return list(islice(own, most))
            return list(islice(self._of_largest(), most))

    def _of_largest(self) -> Iterator[Any]:
        for key in self._sizes.get(self._most, ()):
            yield from self._groups[key]

    def _move(self, key: bytes | None, before: int, after: int) -> None:
        peers = self._sizes.get(before)
        if peers is not None:
            peers.pop(key, None)
            if not peers:
                del self._sizes[before]
        if after:
            self._sizes.setdefault(after, {})[key] = None
        if after > before:
            self._most = max(self._most, after)
        elif before == self._most and before not in self._sizes:
            self._most = after
