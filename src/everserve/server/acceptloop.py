"""The accept loop: wait for the listener, hand one request over, and again.

``serve_forever`` runs it, ``handle_request`` one turn of it. It never waits for a peer, and it wakes
for nothing but a request, a change of the server's state, or a timer that is really due.
"""

from __future__ import annotations

import selectors
from contextlib import contextmanager
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from everserve.server.base import BaseServer
    from everserve.server.stopping import Stopping

__all__ = ["BATCH", "AcceptLoop", "has_service"]

BATCH = 100
"""Requests to take before the loop looks at anything else, as gevent does."""


class AcceptLoop:
    """One run over a server's listener. The caller opens it, turns it, and may drain it."""

    def __init__(self, server: BaseServer) -> None:
        self._server = server
        self._life = server._life
        self._listening = False
        self.gated = False  # it waits for room, and is to be woken when there is some

    @contextmanager
    def open(self) -> Iterator[AcceptLoop]:
        """Wait on the server's ``fileno()`` and on its wake-up until the block ends."""
        self._wakeup = self._life.wakeup()
        with self._wakeup.woken_by_signals(), self._server._open_selector() as self._selector:
            self._selector.register(self._wakeup, selectors.EVENT_READ)
            for descriptor in self._server._watched:
                self.watch(descriptor)
            self._listen(True)
            yield self

    def watch(self, descriptor: int) -> None:
        """Call the server's callback for ``descriptor`` when it is readable."""
        self._selector.register(descriptor, selectors.EVENT_READ)

    def unwatch(self, descriptor: int) -> None:
        """Wait for ``descriptor`` no more."""
        self._selector.unregister(descriptor)

    def run(self, poll_interval: float) -> None:
        """Serve until the server's state says otherwise, then what waits already if it drains."""
        server, life = self._server, self._life
        batch = BATCH if server._takes_batches() else 1
        while life.accepting:
            timeout = poll_interval if server._needs_service() else None
            if self._wait(life.taking, timeout) and life.taking:
                self._take(batch if timeout is None else 1)
            if life.accepting:
                server.service_actions()

    def _take(self, most: int) -> None:
        """Handle what is there, as long as more may come in; asking poll(2) between saves nothing."""
        life = self._life
        for _ in range(most):
            if not self._server._handle_request_noblock():
                return
            if not life.taking or not self._can_accept():
                return

    def turn(self, deadline: float | None) -> bool:
        """Handle one request that comes before ``deadline`` (monotonic). False if none came.

        A stop that is called for meanwhile ends it too.
        """
        server, before = self._server, self._server._stopping
        server._attend()
        while server._stopping is before:
            if self._wait(True, None if deadline is None else max(0.0, deadline - monotonic())):
                server._handle_request_noblock()
                break
            if deadline is not None and monotonic() >= deadline:
                return False
            server._attend()
        return True

    def drain(self, stopping: Stopping) -> None:
        """Serve what waits in the backlog now, not what comes for ever, before the deadline."""
        waiting = max(0, self._server.request_queue_size) + 1  # listen(2): one more than asked
        for _ in range(waiting):
            while not self._can_accept():
                if stopping.is_over():
                    return
                self._wait(True, max(0.0, stopping.deadline - monotonic()))
            closed = self._server.fileno() < 0
            if closed or stopping.is_over() or not self._wait(True, 0.0):
                return
            self._server._handle_request_noblock()

    def _wait(self, wanted: bool, timeout: float | None) -> bool:
        """True if a request waits; false after ``timeout`` seconds or a wake-up."""
        self._listen(wanted and self._can_accept())
        pause = self._server._back_off.remaining() or (wanted and self._server._door.pause())
        if pause and (timeout is None or pause < timeout):
            timeout = pause
        requested = False
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._wakeup:
                self._wakeup.clear()
            elif key.fileobj is self._server:
                requested = True
            elif callback := self._server._watched.get(key.fd):
                callback()
        return requested

    def _can_accept(self) -> bool:
        self.gated = True  # before it looks, so that room made meanwhile is not missed
        if self._server._back_off.remaining() or not self._server._has_room():
            return False
        self.gated = False
        return True

    def _listen(self, listening: bool) -> None:
        if listening is self._listening:
            return
        if listening:
            self._selector.register(self._server, selectors.EVENT_READ)
        else:
            self._selector.unregister(self._server)
        self._listening = listening


@lru_cache(maxsize=64)  # asked at each turn of the loop
def has_service(kind: type) -> bool:
    """True if the class of a server overrides ``service_actions``, and does not answer for itself."""
    return any(
        "service_actions" in vars(base) and "_needs_service" not in vars(base)
        for base in kind.__mro__
    )
