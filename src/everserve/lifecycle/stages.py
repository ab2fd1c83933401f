"""What connections are to those outside: a stage each, and a live view of all of them.

``server.connections`` is the view.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator
from typing import TypeVar

__all__ = ["ConnectionState", "Connections"]


class ConnectionState(enum.Enum):
    """The stage of a request."""

    ACCEPTED = "accepted"
    HANDLING = "handling"
    CLOSED = "closed"


ConnectionT = TypeVar("ConnectionT")


class Connections(Collection[ConnectionT]):
    """A live, read-only view of the connections in progress."""

    def __init__(self, items: dict[int, ConnectionT]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[ConnectionT]:
        return iter(tuple(self._items.values()))

    def __contains__(self, connection: object) -> bool:
        return connection in tuple(self._items.values())

    def __repr__(self) -> str:
        return f"<Connections {list(self)!r}>"
