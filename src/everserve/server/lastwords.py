"""A datagram socket that outlives the stop of its server, for the request that called ``stop``.

That request replies through the server's own socket after the stop has returned; ``UDPServer`` keeps
the socket open for it, until it has ended or its time is up.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from everserve.server.connection import ConnectionState

if TYPE_CHECKING:
    from everserve.admission.deadlines import Watchdog
    from everserve.server.bell import Bell
    from everserve.server.connection import Connection

__all__ = ["LastWords"]


class LastWords:
    """Closes ``sock`` when all of ``requests`` have ended, at ``deadline`` (monotonic) at the latest.

    Owns the socket from when it is made. ``end()`` closes it at once.
    """

    def __init__(
        self,
        sock: socket.socket,
        requests: tuple[Connection, ...],
        bell: Bell,
        watchdog: Watchdog,
        deadline: float,
    ) -> None:
        self._socket = sock
        self._requests = requests
        self._bell = bell
        self._watchdog = watchdog
        watchdog.watch(self, deadline)
        bell.listen(self)

    def of(self, sock: socket.socket) -> bool:
        """True if it is that socket which is kept open."""
        return sock is self._socket and sock.fileno() != -1

    def put(self, item: None) -> None:
        """The bell rings: a request has ended."""
        if all(request.state is ConnectionState.CLOSED for request in self._requests):
            self.end()

    def get(self, *, timeout: float | None) -> None:
        """Nobody waits here."""

    def due(self, now: float) -> None:
        """The deadline has come."""
        self.end()

    def end(self) -> None:
        """Close the socket. Any number of times, from any thread."""
        self._bell.forget(self)
        self._watchdog.forget(self)
        self._socket.close()
        self._bell.ring()
