"""A session: all that one peer sends to a server of datagrams, in order, for one handler.

``SessionTable`` opens it, and puts into its state what comes; it is the ``request`` of its handler.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from everserve.fibers import engines
from everserve.sockets.datagrams import Datagram
from everserve.sockets.tcpinfo import Traffic

if TYPE_CHECKING:
    from everserve.lifecycle.sessionstate import Keeper, SessionState
else:
    SessionState = engines.part("sessionstate", "lifecycle").SessionState

__all__ = ["Session"]


class Session(Datagram):
    """The pair ``(data, socket)`` of the first datagram of a peer, and all that follow: ``state``.

    ``truncated`` and ``credentials`` are those of the datagram that is handled.
    """

    def __new__(cls, datagram: Any, peer: Any, keeper: Keeper) -> Self:
        return super().__new__(cls, datagram)

    def __init__(self, datagram: Any, peer: Any, keeper: Keeper) -> None:
        self.state = SessionState(datagram, peer, keeper)

    def datagrams(self) -> Iterator[bytes]:
        """What the peer sends, in order; waits for the next, and ends with the session."""
        return self.state

    @property
    def truncated(self) -> bool:  # type: ignore[override]
        return bool(getattr(self.state.current, "truncated", False))

    @property
    def credentials(self) -> bytes | None:  # type: ignore[override]
        credentials: bytes | None = getattr(self.state.current, "credentials", None)
        return credentials

    def cut(self) -> None:
        """End at once: the handler does not get what waits."""
        self.state.cut()

    def traffic(self) -> Traffic:
        """The bytes that have moved, as those of a connection."""
        return self.state.traffic()
