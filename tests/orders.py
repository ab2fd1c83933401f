"""A subscriber that knows the legal orders of the events of a connection."""

from __future__ import annotations

import os
from typing import Any

from everserve.events import (
    Accepted,
    Arrived,
    DeadlineMissed,
    Failed,
    Finished,
    Moved,
    Opened,
    Refused,
    ServerEvent,
    Shed,
    Stayed,
)

BEGIN: Any = None
"""The state of a connection without an event."""

AFTER: dict[Any, tuple[type[ServerEvent], ...]] = {
    BEGIN: (Accepted, Arrived),
    Accepted: (Opened, Refused, DeadlineMissed, Shed),
    Opened: (Finished, Failed, Moved, Stayed, DeadlineMissed, Shed),
    Arrived: (Finished, Failed, Moved, Stayed, DeadlineMissed, Shed),
    Refused: (),
    Finished: (),
    Failed: (),
    Moved: (),
}
"""What may come next, by the event that changed the state."""

WITHIN = (DeadlineMissed, Shed, Stayed)
"""Events that change no state."""


class OrderCheck:
    """Keeps the state of each connection of one server; ``violations`` has what is not legal."""

    def __init__(self) -> None:
        self._states: dict[int, Any] = {}
        self._process = os.getpid()
        self.violations: list[tuple[Any, ServerEvent]] = []

    def __call__(self, event: ServerEvent) -> None:
        connection = getattr(event, "connection", None)
        if connection is None or os.getpid() != self._process:
            return
        state = self._states.get(connection, BEGIN)
        if type(event) not in AFTER[state]:
            self.violations.append((state, event))
        if not isinstance(event, WITHIN):
            self._states[connection] = type(event)
