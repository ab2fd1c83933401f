"""One connection in progress, and the view of all of them that ``server.connections`` is."""

from __future__ import annotations

import enum
import os
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Protocol

from everserve.admission.deadlines import ConnectionDeadlines
from everserve.lifecycle.emitter import EventOrder
from everserve.sockets.tcpinfo import Traffic, traffic_of
from everserve.sockets.tls import TLSSocket
from everserve.wire.proxy import ProxyHeader

__all__ = ["Connection", "ConnectionState", "Connections"]


class ConnectionState(enum.Enum):
    """The stage of a request."""

    ACCEPTED = "accepted"
    HANDLING = "handling"
    CLOSED = "closed"


class Counter(Protocol):
    """Counts the traffic of a connection where the kernel does not: a ``CountedSocket``."""

    def traffic(self) -> Traffic | None:
        """The bytes that have moved; ``None`` if that is not known yet."""


class Table(Protocol):
    """The table that a connection is in."""

    def note_freed(self, connection: Connection, lost: Callable[[Connection], object]) -> None: ...


class _Admitted:
    """Fields that few connections set: class attributes, so the others need no memory for them."""

    __slots__ = ()

    held_by: int | None = None  # the process that holds it after the parent closed its copy
    duplicate: socket.socket | None = None  # of the socket, while a process holds the request
    counted: Any = None  # the peer for which it is counted
    origin: Any = None  # the address that the kernel knows, where a PROXY header gives another
    in_crowd: bool = False  # it may have to make room for others
    in_handshake: bool = False  # it is counted as a handshake in progress
    missed: str | None = None  # the deadline it missed
    deadlines: ConnectionDeadlines | None = None
    proxy: ProxyHeader | None = None  # the header that the proxy sent
    tls: TLSSocket | None = None  # the TLS session
    counter: Counter | None = None  # set where the kernel does not count
    events: EventOrder | None = None  # set where there is a subscriber


class Connection(_Admitted):
    """One connection, or one datagram, in progress. Reading it is safe from any thread.

    ``id`` counts the server's connections from 1; ``peer`` is the ``client_address``; ``state`` is a
    ``ConnectionState``; ``age`` is in seconds since the accept.
    """

    __slots__ = (
        "__dict__",
        "failed",
        "gone",
        "id",
        "key",
        "opened",
        "owner",
        "peer",
        "place",
        "reference",
        "runner",
        "session",
        "started",
        "state",
    )

    def __init__(self, number: int, place: int, peer: Any) -> None:
        self.id = number
        self.peer = peer
        self.state = ConnectionState.ACCEPTED
        self.started = self.opened = monotonic()  # `opened`: when its handler began
        self.place = place  # its key in the table: the id of its request
        self.reference: Callable[[], Any] = _nothing
        self.owner: tuple[Table, Callable[[Connection], object]] | None = None
        self.key: int | None = None  # its second key: the descriptor
        self.runner: int | None = None  # the thread or fiber of its handler
        self.failed = False  # its end has been reported
        self.gone = False  # its peer has reset it
        self.session: Any = None  # that of a message handler

    def __call__(self, reference: object) -> None:
        """Note that its request was freed: the weak reference to it calls the connection itself."""
        if self.owner is not None:
            table, lost = self.owner
            table.note_freed(self, lost)

    @property
    def request(self) -> Any:
        """The request, as ``get_request`` returned it; ``None`` once it is closed or freed."""
        return self.reference()

    @property
    def age(self) -> float:
        """Seconds since it was accepted."""
        return monotonic() - self.started

    @property
    def has_begun(self) -> bool:
        """True once something runs its request, and at its end."""
        begun = self.runner is not None or self.held_by is not None
        return begun or self.state is not ConnectionState.ACCEPTED

    @property
    def since(self) -> datetime:
        """When it was accepted, in UTC."""
        return datetime.now(UTC) - timedelta(seconds=self.age)

    def order(self) -> EventOrder:
        """The order of its events; the first event makes it."""
        return self.events or vars(self).setdefault("events", EventOrder())

    def cut(self, before: Callable[[bool], object] = lambda is_cut: None) -> bool:
        """Shut the socket down in both directions: blocked reads end, writes raise.

        False if there is no socket to shut down. ``before(is_cut)`` is called with that, first.
        """
        with self._reach() as sock:
            before(sock is not None)
            if sock is not None:
                with suppress(OSError):
                    # The plain method: SSLSocket's would drop the session while its thread uses it.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
            return sock is not None

    def end_reading(self) -> None:
        """Let the handler find what has come, and then the end of the stream."""
        with self._reach() as sock:
            if sock is not None:
                with suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RD)

    def push(self, message: Any) -> bool:
        """Send ``message`` to the peer, from anywhere, as ``push`` of its message handler does.

        False if it was dropped, as the connection has ended, or its ``outbox`` is full.
        """
        session = self.session
        return session is not None and bool(session.handler.push(message))

    def disconnect(self) -> None:
        """End the connection of a message handler after what has been sent, from anywhere."""
        session = self.session
        if session is not None:
            session.disconnect()

    def traffic(self) -> Traffic | None:
        """The bytes that have moved over it; ``None`` if that is not known."""
        if self.counter is not None:
            return self.counter.traffic()
        with self._reach() as sock:
            return None if sock is None else traffic_of(sock)

    def close(self) -> None:
        """Record its end, and drop the objects of the request."""
        self.state = ConnectionState.CLOSED
        self.reference = _nothing
        self.session = None
        if self.duplicate is not None:
            self.duplicate.close()

    @contextmanager
    def _reach(self) -> Iterator[socket.socket | None]:
        """The socket: the request, or a duplicate while a wrapper has its descriptor."""
        sock = self.duplicate or self.request  # read once: another thread may end it meanwhile
        if issubclass(type(sock), socket.socket) and sock.fileno() != -1:
            yield sock
        elif (found := self._find()) is not None:
            with found:
                yield found
        else:
            yield None

    def _find(self) -> socket.socket | None:
        """A duplicate of what has the descriptor now, if that still is this connection.

        ``SSLContext.wrap_socket`` detaches the descriptor from the request. If the program has closed
        it, the number may belong to anything by now.
        """
        if self.key is None:
            return None
        try:
            found = socket.socket(fileno=os.dup(self.key))
        except OSError:
            return None
        if self._is_own(found):
            return found
        found.close()
        return None

    def _is_own(self, sock: socket.socket) -> bool:
        try:
            peer = sock.getpeername()
            if sock.family == getattr(socket, "AF_UNIX", -1):
                # The table gives a descriptor to its last connection: another accepted one has taken
                # it over, and one that this process has opened has no name.
                return not isinstance(self.peer, tuple) and bool(sock.getsockname())
        except OSError:
            return False
        return bool(peer == (self.origin or self.peer))

    def __repr__(self) -> str:
        return f"<Connection #{self.id} {self.peer!r} {self.state.value} {self.age:.3f} s>"


def _nothing() -> None:
    """The reference of a connection that has ended."""


class Connections(Collection[Connection]):
    """A live, read-only view of the connections in progress.

    ``connections[key]`` and ``connections.get(key)`` find the one whose message handler has set
    ``self.key = key``.
    """

    def __init__(
        self, items: dict[int, Connection], keys: Mapping[Any, Connection] | None = None
    ) -> None:
        self._items = items
        self._keys = {} if keys is None else keys

    def __getitem__(self, key: Any) -> Connection:
        return self._keys[key]

    def get(self, key: Any) -> Connection | None:
        """The connection with that key; ``None`` if there is none now."""
        return self._keys.get(key)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._items.values()))

    def __contains__(self, connection: object) -> bool:
        return connection in tuple(self._items.values())

    def __repr__(self) -> str:
        return f"<Connections {list(self)!r}>"
