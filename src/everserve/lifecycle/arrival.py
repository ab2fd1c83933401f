"""A connection that has come from another process, as the flow and its entry see it.

``messages`` makes it of what a worker has sent; ``Flow.admit_again`` goes on with it.
"""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Arrival"]


class Arrival(Protocol):
    """A connection with its handler, which another process has begun.

    ``request``: its socket; ``client_address``: that of the handler; ``peer``, ``origin`` and
    ``proxy``: those of the ``Connection``; ``accepted``: when it was accepted; ``began``: when its
    handler began (both ``time.monotonic``); ``late``: what is still to be sent, as it was pushed there.
    """

    request: Any
    client_address: Any
    peer: Any
    origin: Any
    proxy: Any
    accepted: float
    began: float
    late: bytes

    def pause(self) -> float:
        """Seconds since the other process has read from it."""

    def begin(self, request: Any) -> None:
        """Go on with the handler, over the socket of this strategy."""

    def close(self) -> None:
        """Close the socket: this process does not go on with it."""
