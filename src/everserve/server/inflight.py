"""The connections in progress: from accept until they are closed.

The server adds and removes them; ``server.connections`` looks at them; ``stop`` waits for them and
cuts them.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from everserve.server.connection import Connection, Connections, ConnectionState

__all__ = ["Inflight"]

_UNBEGUN = 1000
"""Requests of one and the same object that may wait to be handled."""

_LOOKED_AT = 64
"""Connections among which the one that was idle longest is looked for."""


class Inflight:
    """The set of connections in progress. Lock-free: each step is one atomic operation of a dict.

    A connection is found by its request object, and by its descriptor, for a server that wraps the
    socket on the way (TLS). A descriptor that comes again was closed behind the server's back: its
    old entry is ``lost``. A ``get_request`` may return the same object again while it is in progress
    (its one socket, a number): such requests are told apart by their address, and by who runs them.
    """

    def __init__(
        self,
        lost: Callable[[Connection], object] | None = None,
        runner: Callable[[], int] = threading.get_ident,
    ) -> None:
        """``lost(connection)`` is called for one that has ended without a word, and removes it;
        ``runner()`` tells who runs now: a thread, or a fiber."""
        self._lost = lost or self.remove
        self._runner = runner
        self._by_request: dict[int, Connection] = {}
        self._by_descriptor: dict[int, Connection] = {}
        self._shared: dict[int, list[Connection]] = {}  # by the object that several have
        self._shed: set[int] = set()  # the numbers of those that were cut to make room
        self._sharing = threading.RLock()  # for those alone; a signal handler may stop the server
        self._numbers = itertools.count(1)
        self.accepted = 0
        self.view = Connections(self._by_request)

    def __len__(self) -> int:
        return len(self._by_request)

    def add(self, request: Any, peer: Any) -> Connection:
        """File a request. Called by the accept loop alone."""
        connection = Connection(next(self._numbers), request, peer)
        self.accepted += 1
        place = connection.place
        if (place in self._by_request or place in self._shared) and self._share(connection):
            return connection
        if isinstance(request, socket.socket):
            connection.key = key = request.fileno()
            stale = self._by_descriptor.get(key)
            self._by_descriptor[key] = connection
            if stale is not None:
                self._lost(stale)
        self._by_request[place] = connection
        return connection

    def find(self, request: Any) -> Connection | None:
        """The connection that ``request`` belongs to."""
        if self._shared and (connection := self._find_shared(request, None)):
            return connection
        connection = self._by_request.get(id(request))
        if connection is None and isinstance(request, socket.socket):
            return self._by_descriptor.get(request.fileno())
        return connection

    def begin(self, request: Any, peer: Any) -> Connection | None:
        """As ``find``, by the one who begins to handle it: it is his from now on."""
        if not self._shared:
            return self._by_request.get(id(request)) or self.find(request)
        with self._sharing:
            connection = self._find_shared(request, peer, begun=False)
            if connection is None:
                return self.find(request)
            connection.runner = self._runner()
            return connection

    def _share(self, connection: Connection) -> bool:
        """File another connection of the same object; false if there is no other any more."""
        place = connection.place
        with self._sharing:
            first = self._by_request.get(place)
            all_ = self._shared.get(place) or ([] if first is None else [first])
            others = [c for c in all_ if c.state is not ConnectionState.CLOSED and not c.done]
            if others:
                self._shared[place] = [*others, connection]
                connection.place = -connection.id
                self._by_request[connection.place] = connection
            else:
                self._shared.pop(place, None)
        for other in all_:
            if other.done:  # its hooks do not say when it ends, but now it has
                self._lost(other)
        unbegun = [c for c in others if c.runner is None and c.held_by is None]
        if len(unbegun) > _UNBEGUN:  # hooks that neither handle a request nor say that it ends
            self._lost(unbegun[0])
        return bool(others)

    def _find_shared(self, request: Any, peer: Any, *, begun: bool = True) -> Connection | None:
        """Which of those with the same object: the newest that runs here, or the oldest that does
        not run yet, of this very ``peer`` if there is one."""
        all_ = self._shared.get(id(request), ())
        there = [c for c in all_ if c.state is not ConnectionState.CLOSED and c.held_by is None]
        if begun:
            here = self._runner()
            for connection in reversed(there):
                if connection.runner == here:
                    return connection
        unbegun = [c for c in there if c.runner is None]
        return next((c for c in unbegun if c.peer is peer), unbegun[0] if unbegun else None)

    def _unshare(self, connection: Connection) -> None:
        place = id(connection.request)
        with self._sharing:
            left = [c for c in self._shared.get(place, ()) if c is not connection]
            if left:
                self._shared[place] = left
            else:
                self._shared.pop(place, None)

    def unfile(self, request: Any) -> Connection | None:
        """Find a request that is about to be closed, and give its descriptor free for the next."""
        connection = None if self._shared else self._by_request.get(id(request))
        if connection is None:
            connection = self.find(request)
        if connection is not None and connection.key is not None:
            if self._by_descriptor.get(connection.key) is connection:
                self._by_descriptor.pop(connection.key, None)
            connection.key = None
        return connection

    def remove(self, connection: Connection | None) -> bool:
        """Take a connection out. True for one caller only, and never while a process holds it."""
        if connection is None or connection.held_by is not None:
            return False
        if self._by_request.pop(connection.place, None) is None:
            return False
        connection.state = ConnectionState.CLOSED
        self._shed.discard(connection.id)
        if self._shared:
            self._unshare(connection)
        connection.request = None
        if connection.twin is not None:
            connection.twin.close()
        return True

    def hold(self, request: Any, process: int) -> None:
        """Keep the entry although this process closes its copy: ``process`` has the connection."""
        connection = self.unfile(request)
        if connection is not None:
            connection.held_by = process
            connection.state = ConnectionState.HANDLING

    def release(self, process: int) -> Connection | None:
        """The connection that ``process`` held, for ``remove``, once that process has ended."""
        for connection in self.view:
            if connection.held_by == process:
                connection.held_by = None
                return connection
        return None

    def shed(self, *, but: Any) -> Connection | None:
        """The ``longest_idle`` one, to be cut; ``None`` where there is none.

        Nor is there one where half of all have been cut already and have not ended: their handlers do
        not look at their connection, and to let still more in would be no limit at all.
        """
        if 2 * len(self._shed) > len(self):
            return None
        idle = self.longest_idle(but=but)
        if idle is not None:
            idle.missed = "shed-idle"
            self._shed.add(idle.id)
        return idle

    def longest_idle(self, *, but: Any) -> Connection | None:
        """Of the oldest connections (a look at each costs a system call) the one idle longest.

        Those that have been cut already, and have not ended yet, do not count.
        """
        there = (c for c in self.view if c.request is not but and c.missed is None)
        oldest = itertools.islice(there, _LOOKED_AT)
        looks = [(traffic.quiet, -c.id, c) for c in oldest if (traffic := c.traffic())]
        return max(looks)[2] if looks else None

    def forget_closed(self) -> None:
        """Drop those whose socket was closed without the server's hooks."""
        for connection in self.view:
            if connection.key is not None and _is_closed(connection.request, connection.key):
                self.unfile(connection.request)
                self.remove(connection)


def _is_closed(request: Any, descriptor: int) -> bool:
    """True unless the socket, or one that was wrapped around it, still has its descriptor."""
    if request.fileno() != -1:
        return False
    try:
        os.fstat(descriptor)
    except OSError:
        return True
    return False
