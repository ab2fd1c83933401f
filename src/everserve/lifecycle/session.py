"""A session: all that one peer sends to a server of datagrams, in order, for one handler.

``SessionTable`` opens it, and puts in what comes; it is the ``request`` of its handler, which takes it.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, Protocol, Self

from everserve.errors import NoReplyAddressError
from everserve.fibers.engines import current
from everserve.fibers.waiters import wait_until
from everserve.sockets.datagrams import Datagram
from everserve.sockets.tcpinfo import Traffic

__all__ = ["Keeper", "Session"]


class Keeper(Protocol):
    """What a session needs of the table that it is in."""

    def budget(self) -> float | None:
        """How many times what a peer sent it may be sent, before it is validated."""

    def withheld(self, session: Session) -> None:
        """Note that a reply was not sent."""


class Session(Datagram):
    """The pair ``(data, socket)`` of the first datagram of a peer, and all that follow.

    ``received`` and ``sent`` are in bytes; ``unread`` counts the datagrams that its handler did not get
    before the end. ``is_over``: nothing more comes in. One thread puts in, one
    handler takes out; it may be ended from any thread.
    """

    def __new__(cls, datagram: Any, peer: Any, keeper: Keeper) -> Self:
        return super().__new__(cls, datagram)

    def __init__(self, datagram: Any, peer: Any, keeper: Keeper) -> None:
        self.peer = peer
        self._note(datagram)
        self.received = len(datagram[0])
        self.sent = 0
        self.unread = 0
        self.validated = False
        self.is_over = False
        self._keeper = keeper
        self._moved = monotonic()
        self._first = datagram
        self._waiting: deque[Any] = deque([datagram])
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], object]] = []

    # -- for the accept loop -------------------------------------------------------------------

    def put(self, datagram: Any, limit: int, drops: str) -> Datagram | bool | None:
        """Add what the peer sent. ``True`` if all is well, ``False`` if the session is over.

        If ``limit`` datagrams wait, one is dropped, and returned: the ``"newest"`` or the ``"oldest"``.
        """
        with self._lock:
            if self.is_over:
                return False
            self.received += len(datagram[0])
            self._moved = monotonic()
            waiting, dropped = len(self._waiting), None
            if waiting < limit:
                self._waiting.append(datagram)
            elif drops == "newest":
                dropped = datagram
            else:
                self._waiting.append(datagram)
                dropped = self._waiting.popleft()
        if not waiting:  # else its handler knows already
            self._notify()
        return True if dropped is None else dropped

    # -- for the handler -----------------------------------------------------------------------

    def datagrams(self) -> Iterator[bytes]:
        """What the peer sends, in order; waits for the next, and ends with the session."""
        while True:
            is_over = self.is_over  # first: what came before the end is still taken
            try:
                datagram = self._waiting.popleft()
            except IndexError:
                if is_over:
                    return
                self._wait()
                continue
            if self._is_noted or type(datagram) is not tuple:
                self._note(datagram)
            yield datagram[0]

    def _wait(self) -> None:
        """Wait for a datagram, or for the end."""
        fiber = current()
        if fiber is None:
            wait_until(self._has_news, self._callbacks, None, None)
            return
        wake = fiber.wake  # as `wait_until` does, in half its time: each datagram may wake a fiber
        self._callbacks.append(wake)
        try:
            while not (self._waiting or self.is_over):
                fiber.hub.park(None)
        finally:
            self._callbacks.remove(wake)

    def _note(self, datagram: tuple[Any, Any]) -> None:
        """Note what is known of the datagram that is handled now: few are more than a pair."""
        self._is_noted = type(datagram) is not tuple
        self.truncated = getattr(datagram, "truncated", False)
        self.credentials = getattr(datagram, "credentials", None)

    def send(self, data: bytes) -> bool:
        """Send ``data`` to the peer. False if that would exceed the budget of its replies."""
        if not self.peer:
            raise NoReplyAddressError(
                "the sender has no address: it must bind its socket for a reply"
            )
        budget = None if self.validated else self._keeper.budget()
        if budget is not None and self.sent + len(data) > budget * self.received:
            self._keeper.withheld(self)
            return False
        self.sent += len(data)
        self._moved = monotonic()
        sock: socket.socket = self[1]
        sock.sendto(data, self.peer)
        return True

    # -- the end -------------------------------------------------------------------------------

    def finish(self) -> None:
        """Take nothing more in; the handler still gets what waits."""
        with self._lock:
            self.is_over = True
        self._notify()

    def cut(self) -> None:
        """End at once: the handler does not get what waits."""
        with self._lock:
            self.is_over = True
            # The first is the request itself, and counts as such.
            self.unread += sum(datagram is not self._first for datagram in self._waiting)
            self._waiting.clear()
        self._notify()

    def traffic(self) -> Traffic:
        """The bytes that have moved, as those of a connection."""
        quiet = monotonic() - self._moved
        return Traffic(quiet=quiet, received=self.received, delivered=self.sent, waiting=False)

    def _has_news(self) -> bool:
        return bool(self._waiting) or self.is_over

    def _notify(self) -> None:
        for callback in tuple(self._callbacks):
            callback()
