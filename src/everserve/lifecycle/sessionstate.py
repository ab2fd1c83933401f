# cython: binding=False, annotation_typing=False
"""The state of a session: what waits for its handler, what has come and gone, and its reply budget.

``SessionTable`` puts in what the peer sends; the handler takes it, and sends. One source for both
engines: ``_sessionstate`` is this file, compiled, with the types of ``_sessionstate.pxd``.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol, Self

from everserve.errors import NoReplyAddressError
from everserve.fibers.engines import current
from everserve.fibers.waiters import wait_until
from everserve.sockets.tcpinfo import Traffic

__all__ = ["Keeper", "SessionState"]

COMPILED = __name__ == "everserve.lifecycle._sessionstate"

_LOCK = threading.Lock()
"""Held by a step, in Python. In C a step is complete before another thread runs."""


class Keeper(Protocol):
    """What a session needs of the table that it is in."""

    def budget(self) -> float | None:
        """How many times what a peer sent it may be sent, before it is validated."""

    def withheld(self, state: SessionState) -> None:
        """Note that a reply was not sent."""


class SessionState:
    """One thread puts in, one handler takes out; it may be ended from any thread.

    An iterator over the bytes of what the peer sends. ``received`` and ``sent`` are in bytes;
    ``unread`` counts the datagrams that the handler did not get before the end. ``is_over``: nothing
    more comes in. ``current``: the datagram that is handled now.
    """

    def __init__(self, datagram: Any, peer: Any, keeper: Keeper) -> None:
        self.peer = peer
        self.current = datagram
        self.received = len(datagram[0])
        self.sent = self.unread = 0
        self.validated = self.is_over = False
        self._sock = datagram[1]
        self._keeper = keeper
        self._moved = monotonic()
        self._first = datagram
        self._waiting: deque[Any] = deque([datagram])
        self._is_first = False  # what was put in last: its handler may wait for it
        self._wake: Callable[[], object] | None = None  # of the fiber that waits
        self._callbacks: list[Callable[[], object]] = []  # of a thread that waits

    # -- for the accept loop -------------------------------------------------------------------

    def put(self, datagram: Any, limit: int, drops: str) -> Any:
        """Add what the peer sent. ``True`` if all is well, ``False`` if the session is over.

        If ``limit`` datagrams wait, one is dropped, and returned: the ``"newest"`` or the ``"oldest"``.
        """
        self._is_first = False
        if COMPILED:
            result = self._add(datagram, limit, drops)
        else:
            with _LOCK:
                result = self._add(datagram, limit, drops)
        if self._is_first:
            self._notify()
        return result

    def _add(self, datagram: Any, limit: int, drops: str) -> Any:
        if self.is_over:
            return False
        self.received += len(datagram[0])
        self._moved = monotonic()
        waiting = len(self._waiting)
        if waiting < limit:
            self._waiting.append(datagram)
            self._is_first = waiting == 0  # else its handler knows already
            return True
        if drops == "newest":
            return datagram
        self._waiting.append(datagram)
        return self._waiting.popleft()

    # -- for the handler -----------------------------------------------------------------------

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        """What the peer sent next; waits for it, and ends with the session."""
        while True:
            is_over = self.is_over  # first: what came before the end is still taken
            try:
                self.current = datagram = self._waiting.popleft()
            except IndexError:
                if is_over:
                    raise StopIteration from None
                self._wait()
                continue
            data: bytes = datagram[0]
            return data

    def _wait(self) -> None:
        """Wait for a datagram, or for the end."""
        fiber = current()
        if fiber is None:
            wait_until(self._has_news, self._callbacks, None, None)
            return
        self._wake = fiber.wake  # as `wait_until` does, in half its time: each may wake a fiber
        try:
            while not (self._waiting or self.is_over):
                fiber.hub.park(None)
        finally:
            self._wake = None

    def send(self, data: Any) -> bool:
        """Send ``data`` to the peer. False if that would exceed the budget of its replies."""
        if not self.peer:
            raise NoReplyAddressError(
                "the sender has no address: it must bind its socket for a reply"
            )
        size = len(data)
        if not self.validated:
            budget = self._keeper.budget()
            if budget is not None and self.sent + size > budget * self.received:
                self._keeper.withheld(self)
                return False
        self.sent += size
        self._moved = monotonic()
        self._sock.sendto(data, self.peer)
        return True

    # -- the end -------------------------------------------------------------------------------

    def finish(self) -> None:
        """Take nothing more in; the handler still gets what waits."""
        with _LOCK:  # after what is just put in
            self.is_over = True
        self._notify()

    def cut(self) -> None:
        """End at once: the handler does not get what waits."""
        if COMPILED:
            self._take_all()
        else:
            with _LOCK:
                self._take_all()
        self._notify()

    def _take_all(self) -> None:
        self.is_over = True
        for datagram in self._waiting:
            if datagram is not self._first:  # which is the request itself, and counts as such
                self.unread += 1
        self._waiting.clear()

    def traffic(self) -> Traffic:
        """The bytes that have moved, as those of a connection."""
        quiet = monotonic() - self._moved
        return Traffic(quiet=quiet, received=self.received, delivered=self.sent, waiting=False)

    def _has_news(self) -> bool:
        return bool(self._waiting) or self.is_over

    def _notify(self) -> None:
        wake = self._wake
        if wake is not None:
            wake()
        if self._callbacks:
            for callback in tuple(self._callbacks):
                callback()
