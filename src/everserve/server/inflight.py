"""The connections in progress: from accept until they are closed.

The server adds and removes them; ``server.connections`` looks at them; ``stop`` waits for them and
cuts them.
"""

from __future__ import annotations

import enum
import itertools
import os
import socket
from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any

from everserve.sockets.tcpinfo import Traffic, traffic_of

if TYPE_CHECKING:
    from everserve.admission.pace import Pace
    from everserve.sockets.counted import CountedSocket
    from everserve.sockets.tls import TLSSocket
    from everserve.wire.proxy import ProxyHeader

_LOOKED_AT = 64
"""Connections among which the one that was idle longest is looked for."""

__all__ = ["Connection", "ConnectionState", "Connections", "Inflight"]


class ConnectionState(enum.Enum):
    """Where a request is on its way."""

    ACCEPTED = "accepted"
    HANDLING = "handling"
    CLOSED = "closed"


class _Admitted:
    """What is known of few connections: class attributes, so that the others need no room for it."""

    __slots__ = ()

    held_by: int | None = None  # the process that has it after the parent closed its copy
    twin: socket.socket | None = None  # the socket again, while a process holds the request
    counted: Any = None  # the peer among whose connections it is
    greeting: bool = False  # among the handshakes in progress
    missed: str | None = None  # the deadline it missed
    pace: Pace | None = None  # its deadlines
    proxy: ProxyHeader | None = None  # what the proxy in front said
    tls: TLSSocket | None = None  # the TLS session
    counter: CountedSocket | None = None  # what counts where the kernel does not


class Connection(_Admitted):
    """One connection, or one datagram, in progress. Reading it is safe from any thread.

    ``id`` counts the server's connections from 1; ``peer`` is the ``client_address``; ``state`` is a
    ``ConnectionState``; ``age`` is in seconds since the accept.
    """

    __slots__ = ("__dict__", "failed", "id", "key", "peer", "request", "runner", "started", "state")

    def __init__(self, number: int, request: Any, peer: Any) -> None:
        self.id = number
        self.peer = peer
        self.state = ConnectionState.ACCEPTED
        self.started = monotonic()
        self.request = request
        self.key: int | None = None  # the descriptor under which it is filed
        self.runner: int | None = None  # the thread, or the fiber, of its handler
        self.failed = False  # its end has been told

    @property
    def age(self) -> float:
        """Seconds since it was accepted."""
        return monotonic() - self.started

    @property
    def since(self) -> datetime:
        """When it was accepted, in UTC."""
        return datetime.now(UTC) - timedelta(seconds=self.age)

    def cut(self) -> None:
        """Shut the socket down in both directions: blocked reads end, writes raise."""
        sock = self.twin or self.request  # once: it may end meanwhile, in another thread
        if isinstance(sock, socket.socket):
            with suppress(OSError):
                # The plain method: SSLSocket's would pull the session from under its thread.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def traffic(self) -> Traffic | None:
        """What has moved over it; ``None`` if nobody knows."""
        if self.counter is not None:
            return self.counter.traffic()
        sock = self.twin or self.request
        return traffic_of(sock) if isinstance(sock, socket.socket) else None

    def __repr__(self) -> str:
        return f"<Connection #{self.id} {self.peer!r} {self.state.value} {self.age:.3f} s>"


class Connections(Collection[Connection]):
    """A live, read-only view of the connections in progress."""

    def __init__(self, items: dict[int, Connection]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._items.values()))

    def __contains__(self, connection: object) -> bool:
        return connection in tuple(self._items.values())

    def __repr__(self) -> str:
        return f"<Connections {list(self)!r}>"


class Inflight:
    """The set of connections in progress. Lock-free: each step is one atomic operation of a dict.

    A connection is found by its request object, and by its descriptor, for a server that wraps the
    socket on the way (TLS). A descriptor that comes again was closed behind the server's back: its
    old entry goes.
    """

    def __init__(self) -> None:
        self._by_request: dict[int, Connection] = {}
        self._by_descriptor: dict[int, Connection] = {}
        self._numbers = itertools.count(1)
        self.accepted = 0
        self.view = Connections(self._by_request)

    def __len__(self) -> int:
        return len(self._by_request)

    def add(self, request: Any, peer: Any) -> Connection:
        """File a request. Called by the accept loop alone."""
        connection = Connection(next(self._numbers), request, peer)
        self.accepted += 1
        if isinstance(request, socket.socket):
            connection.key = key = request.fileno()
            stale = self._by_descriptor.get(key)
            self._by_descriptor[key] = connection
            self.remove(stale)
        self._by_request[id(request)] = connection
        return connection

    def find(self, request: Any) -> Connection | None:
        """The connection that ``request`` belongs to."""
        connection = self._by_request.get(id(request))
        if connection is None and isinstance(request, socket.socket):
            return self._by_descriptor.get(request.fileno())
        return connection

    def unfile(self, request: Any) -> Connection | None:
        """Find a request that is about to be closed, and give its descriptor free for the next."""
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
        if self._by_request.pop(id(connection.request), None) is None:
            return False
        connection.state = ConnectionState.CLOSED
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
