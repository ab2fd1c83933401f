# cython: binding=False, annotation_typing=False
"""One connection in progress.

One source for both engines: ``_connection`` is this file, compiled, with the types of
``_connection.pxd``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Protocol

from everserve.admission.deadlines import ConnectionDeadlines
from everserve.lifecycle.arrival import Arrival
from everserve.lifecycle.emitter import EventOrder
from everserve.lifecycle.session import Session
from everserve.lifecycle.stages import ConnectionState
from everserve.sockets.genuine import RealSocket, is_socket
from everserve.sockets.tcpinfo import Traffic, traffic_of
from everserve.sockets.tls import TLSSocket
from everserve.wire.proxy import ProxyHeader

__all__ = ["Connection", "plain"]

_ACCEPTED, _CLOSED = ConnectionState.ACCEPTED, ConnectionState.CLOSED


class Counter(Protocol):
    """Counts the traffic of a connection where the kernel does not: a ``CountedSocket``."""

    def traffic(self) -> Traffic | None:
        """The bytes that have moved; ``None`` if that is not known yet."""


class Owner(Protocol):
    """Who is told of a connection that ends without the hooks: ``Progress``, or the table alone."""

    def ended(self, connection: Any) -> None: ...


class Table(Protocol):
    """The table that a connection is in."""

    def note_freed(self, connection: Connection, owner: Owner) -> None: ...


class Connection:
    """One connection, or one datagram, in progress. Reading it is safe from any thread.

    ``id`` counts the server's connections from 1; ``peer`` is the ``client_address``; ``state`` is a
    ``ConnectionState``; ``age`` is in seconds since the accept.
    """

    __slots__ = (
        "__dict__",
        "arrival",
        "context",
        "conversation",
        "counted",
        "counter",
        "deadlines",
        "duplicate",
        "failed",
        "gone",
        "held_by",
        "id",
        "in_crowd",
        "in_handshake",
        "key",
        "missed",
        "opened",
        "origin",
        "owner",
        "peer",
        "place",
        "proxy",
        "reference",
        "runner",
        "started",
        "state",
        "table",
        "tls",
        "unbegun",
        "worker",
    )

    def __init__(self, number: int, place: int, peer: Any) -> None:
        self.id = number
        self.peer = peer
        self.state = _ACCEPTED
        self.started = self.opened = monotonic()  # `opened`: when its handler began
        self.place = place  # its key in the table: the id of its request
        self.reference: Callable[[], Any] = _nothing
        self.table: Table | None = None  # the table that it is in
        self.owner: Any = None  # whom to tell where it ends without the hooks
        self.key: int | None = None  # its second key: the descriptor
        self.runner: int | None = None  # the thread or fiber of its handler
        self.unbegun = True  # it is neither opened nor refused
        self.failed = False  # its end has been reported
        self.gone = False  # its peer has reset it
        self.in_crowd = False  # it may have to make room for others
        self.in_handshake = False  # it is counted as a handshake in progress
        self.counted: Any = None  # the peer for which it is counted
        self.origin: Any = None  # the address of the proxy, where its header gives another
        self.held_by: int | None = None  # the process that has it, its copy here being closed
        self.duplicate: socket.socket | None = None  # of the socket, while a process has it
        self.missed: str | None = None  # the deadline it missed
        self.deadlines: ConnectionDeadlines | None = None
        self.proxy: ProxyHeader | None = None  # the header that the proxy sent
        self.tls: TLSSocket | None = None  # the TLS session
        self.context: Any = None  # of its first steps, if they come before its request runs
        self.worker: int | None = None  # the process that has it, where this is a copy for another
        self.counter: Counter | None = None  # set where the kernel does not count
        self.conversation: Any = None  # that of a message handler
        self.arrival: Arrival | None = None  # set where it has come from another process

    def __call__(self, reference: object) -> None:
        """Note that its request was freed: the weak reference to it calls the connection itself."""
        if self.table is not None:
            self.table.note_freed(self, self.owner)

    @property
    def request(self) -> Any:
        """The request, as ``get_request`` returned it; ``None`` once it is closed or freed."""
        return self.reference()

    @property
    def age(self) -> float:
        """Seconds since it was accepted."""
        return monotonic() - self.started

    @property
    def limited_since(self) -> float:
        """The time (monotonic) from which the limits of its handler count: in any process."""
        if self.deadlines is not None:
            return self.deadlines.began
        return self.opened if self.arrival is None else self.arrival.began

    @property
    def has_begun(self) -> bool:
        """True once something runs its request, and at its end."""
        begun = self.runner is not None or self.held_by is not None
        return begun or self.state is not _ACCEPTED

    @property
    def since(self) -> datetime:
        """When it was accepted, in UTC."""
        return datetime.now(UTC) - timedelta(seconds=self.age)

    def order(self) -> EventOrder:
        """The order of its events; the first event makes it."""
        own = vars(self)
        order: EventOrder = own.get("events") or own.setdefault("events", EventOrder())
        return order

    def cut(self, before: Callable[[bool], object] = lambda is_cut: None) -> bool:
        """Shut the socket down in both directions: blocked reads end, writes raise. A session ends.

        False if there is neither. ``before(is_cut)`` is called with that, first.
        """
        request = self.request
        if isinstance(request, Session):
            before(True)
            request.cut()
            return True
        with self._reach() as sock:
            before(sock is not None)
            if sock is not None:
                with suppress(OSError):
                    _shut_down(sock, socket.SHUT_RDWR)
            conversation = self.conversation
            if conversation is not None:
                conversation.abandon()
            return sock is not None

    def end_reading(self) -> None:
        """Let the handler find what has come, and then the end of the stream."""
        with self._reach() as sock:
            if sock is not None:
                with suppress(OSError):
                    _shut_down(sock, socket.SHUT_RD)

    def push(self, message: Any) -> bool:
        """Send ``message`` to the peer, from anywhere, as ``push`` of its message handler does.

        False if it was dropped, as the connection has ended, or its ``outbox`` is full.
        """
        conversation = self.conversation
        return conversation is not None and bool(conversation.handler.push(message))

    def disconnect(self) -> None:
        """End the connection of a message handler after what has been sent, from anywhere."""
        conversation = self.conversation
        if conversation is not None:
            conversation.disconnect()

    def traffic(self) -> Traffic | None:
        """The bytes that have moved over it; ``None`` if that is not known."""
        if self.counter is not None:
            return self.counter.traffic()
        request = self.request
        if isinstance(request, Session):
            return request.traffic()
        with self._reach() as sock:
            return None if sock is None else traffic_of(sock)

    def close(self) -> None:
        """Record its end, and drop the objects of the request."""
        self.state = _CLOSED
        self.reference = _nothing
        if self.context is not None:
            self.context = None  # which refers to this
        self.conversation = self.deadlines = None  # these refer to this too
        if self.duplicate is not None:
            self.duplicate.close()

    @contextmanager
    def _reach(self) -> Iterator[socket.socket | None]:
        """The socket: the request, or a duplicate while a wrapper has its descriptor."""
        sock = self.duplicate or self.request  # read once: another thread may end it meanwhile
        if is_socket(sock) and sock.fileno() != -1:
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
            descriptor = os.dup(self.key)
        except OSError:
            return None
        try:
            found = RealSocket(fileno=descriptor)
        except OSError:  # it is another file by now
            os.close(descriptor)
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

    def __reduce__(self) -> tuple[Callable[..., Connection], tuple[Any, ...]]:
        # For another process: what it can be asked there, not what it owns.
        parts = (
            self.id,
            plain(self.peer),
            self.state,
            self.started,
            self.opened,
            self.worker or os.getpid(),
        )
        return _copy, parts

    def __repr__(self) -> str:
        return f"<Connection #{self.id} {self.peer!r} {self.state.value} {self.age:.3f} s>"


def _shut_down(sock: Any, how: int) -> None:
    """By the plain method: that of SSLSocket would drop the session while its thread uses it.

    That of a green socket would raise in what waits for it, instead of showing it the end.
    """
    if issubclass(type(sock), RealSocket):
        RealSocket.shutdown(sock, how)
    else:
        with RealSocket(fileno=os.dup(sock.fileno())) as duplicate:
            duplicate.shutdown(how)


def plain(value: Any) -> Any:
    """A peer as another process can read it: an object of the program's own as its ``repr``."""
    if type(value) is tuple:
        return tuple(map(plain, value))
    return value if value is None or type(value) in (str, bytes, int, float) else repr(value)


def _copy(
    number: int,
    peer: Any,
    state: ConnectionState,
    started: float,
    opened: float,
    worker: int,
) -> Connection:
    """A connection of another process: to look at, not to cut. The clock is that of the machine."""
    connection = Connection(number, 0, peer)
    connection.state, connection.started, connection.opened = state, started, opened
    connection.worker = worker
    return connection


def _nothing() -> None:
    """The reference of a connection that has ended."""
