"""What connections are to those outside: a stage each, and a live view of all of them.

``server.connections`` is the view.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

__all__ = ["ConnectionState", "Connections"]


class ConnectionState(enum.Enum):
    """The stage of a request."""

    ACCEPTED = "accepted"
    HANDLING = "handling"
    CLOSED = "closed"


ConnectionT = TypeVar("ConnectionT")


class Connections(Collection[ConnectionT]):
    """A live, read-only view of the connections in progress.

    ``connections[key]`` and ``connections.get(key)`` find the one whose message handler has set
    ``self.key = key``.
    """

    def __init__(
        self,
        items: dict[int, ConnectionT],
        enter_all: Callable[[], object] = lambda: None,
        keys: Mapping[Any, ConnectionT] | None = None,
    ) -> None:
        self._items = items
        self._keys = {} if keys is None else keys
        self._enter_all = enter_all  # adds those that need no entry until someone looks

    def __getitem__(self, key: Any) -> ConnectionT:
        return self._keys[key]

    def get(self, key: Any) -> ConnectionT | None:
        """The connection with that key; ``None`` if there is none now."""
        return self._keys.get(key)

    def __len__(self) -> int:
        self._enter_all()
        return len(self._items)

    def __iter__(self) -> Iterator[ConnectionT]:
        self._enter_all()
        return iter(tuple(self._items.values()))

    def __contains__(self, connection: object) -> bool:
        return connection in tuple(self._items.values())

    def __repr__(self) -> str:
        return f"<Connections {list(self)!r}>"
