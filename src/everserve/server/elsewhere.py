"""What a server knows that other processes serve: its workers.

In the process that supervises them, ``Served`` asks this in place of the parts behind the server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from everserve.events import Subscriber
from everserve.lifecycle.connection import Connection
from everserve.lifecycle.stages import Connections
from everserve.lifecycle.state import ServerState
from everserve.server.stop import StopReport

__all__ = ["Elsewhere"]


class Elsewhere(Protocol):
    """One server, as all of its workers together have it. For any thread."""

    def state(self) -> ServerState:
        """Where the server is in its life."""

    def connections(self) -> Connections[Connection]:
        """The requests in progress now, in all workers."""

    def refusals(self) -> dict[str, int]:
        """How many requests were refused so far, by reason."""

    def suspend(self, suspended: bool) -> None:
        """Have all workers suspend, or resume."""

    def stop(self, grace: float) -> StopReport:
        """Stop all workers."""

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call ``subscriber(event)`` for the events of all workers."""
