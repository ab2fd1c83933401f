"""One connection in progress, and the look at all of them that ``server.connections`` is."""

from __future__ import annotations

import enum
import socket
from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from everserve.sockets.tcpinfo import Traffic, traffic_of

if TYPE_CHECKING:
    from everserve.admission.pace import Pace
    from everserve.sockets.tls import TLSSocket
    from everserve.wire.proxy import ProxyHeader

__all__ = ["Connection", "ConnectionState", "Connections"]


class ConnectionState(enum.Enum):
    """Where a request is on its way."""

    ACCEPTED = "accepted"
    HANDLING = "handling"
    CLOSED = "closed"


class Counter(Protocol):
    """What knows the traffic of a connection: a ``CountedSocket``, or a child's note of its own."""

    def traffic(self) -> Traffic | None:
        """What has moved; ``None`` if that is not known yet."""


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
    counter: Counter | None = None  # what counts where the kernel does not


class Connection(_Admitted):
    """One connection, or one datagram, in progress. Reading it is safe from any thread.

    ``id`` counts the server's connections from 1; ``peer`` is the ``client_address``; ``state`` is a
    ``ConnectionState``; ``age`` is in seconds since the accept.
    """

    __slots__ = (
        "__dict__",
        "done",
        "failed",
        "gone",
        "id",
        "key",
        "peer",
        "place",
        "request",
        "runner",
        "started",
        "state",
    )

    def __init__(self, number: int, request: Any, peer: Any) -> None:
        self.id = number
        self.peer = peer
        self.state = ConnectionState.ACCEPTED
        self.started = monotonic()
        self.request = request
        self.place = id(request)  # where it is filed
        self.key: int | None = None  # the descriptor under which it is filed too
        self.runner: int | None = None  # the thread, or the fiber, of its handler
        self.failed = False  # its end has been told
        self.gone = False  # its peer has reset it
        self.done = False  # its handler has ended

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
