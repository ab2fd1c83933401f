"""Makes events of one kind: the reference of ``_making.pyx``, which writes the fields directly."""

from __future__ import annotations

from typing import Any

from everserve.events import ServerEvent

__all__ = ["Maker"]


class Maker:
    """Makes events of a kind that has two or three fields of its own."""

    def __init__(self, kind: type[ServerEvent]) -> None:
        self._kind: Any = kind

    def make(self, server: str, first: Any, second: Any, *third: Any) -> Any:
        """The event, of the server with that name."""
        event = self._kind(first, second, *third)
        object.__setattr__(event, "server", server)  # it is frozen for its readers
        return event
