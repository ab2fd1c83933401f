# cython: binding=False, annotation_typing=False
"""The connections in progress: from accept until they are closed.

``Progress`` adds and removes them; ``server.connections`` is a view of them; a stop waits for them
and cuts them. One source for both engines: ``_connections`` is this file, compiled, with the types of
``_connections.pxd``.
"""

from __future__ import annotations

import importlib
import itertools
import os
import socket
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ref

from everserve.lifecycle.stages import Connections, ConnectionState

COMPILED = __name__ == "everserve.lifecycle._connections"

if TYPE_CHECKING or not COMPILED:
    from everserve.lifecycle.connection import Connection
else:
    Connection = importlib.import_module("everserve.lifecycle._connection").Connection

if TYPE_CHECKING:
    from everserve.lifecycle.connection import Owner

__all__ = ["LOOKED_AT", "ConnectionTable", "RunInProgress"]

_Socket = socket.socket

LOOKED_AT = 64
"""How many connections are searched for the longest idle one."""


class RunInProgress(Protocol):
    """A batch of datagrams that is being handled: a ``Run`` of ``sockets.datagrams``."""

    number: int | None
    entry: Any
    account: Any
    emitting: bool

    @property
    def request(self) -> Any: ...
    @property
    def address(self) -> Any: ...
    @property
    def runner(self) -> int | None: ...
    @property
    def left(self) -> int: ...
    def count(self) -> int: ...
    def take_entry(self) -> Any: ...


class ConnectionTable:
    """The set of connections in progress. Lock-free: each step is one atomic operation of a dict.

    A connection is found by its request object, and also by its descriptor, for a server that wraps
    the socket on the way (TLS). If a descriptor appears again, the program closed it without the
    server's hooks: its old entry is dropped, as is an entry whose request was freed. The table keeps
    no request alive. A request that is already in progress (a ``get_request`` that returns its one
    socket again and again) has no entry. ``by_request`` has the connections by the ``id`` of their
    request: to look there first, and only then to ``find``, saves a call for each step of a request.
    """

    def __init__(self) -> None:
        self.by_request: dict[int, Connection] = {}
        self._by_descriptor: dict[int, Connection] = {}
        self._shed: set[int] = set()  # the ids of those cut to make room
        self._numbers = itertools.count(1)
        self.accepted = 0
        self.moved = 0  # to other processes
        self.runs: set[RunInProgress] = set()
        self._by_key: dict[Any, Connection] = {}

    @property
    def view(self) -> Connections[Connection]:
        """What is in progress, to look at: the table itself holds none, which would hold the table."""
        return Connections(self.by_request, self.enter_all, self._by_key)

    def __len__(self) -> int:
        """How many are in progress; a batch that waits counts as one."""
        if not self.runs:
            return len(self.by_request)
        self.enter_all()
        waiting = sum(run.request is None and run.left > 0 for run in tuple(self.runs))
        return len(self.by_request) + waiting

    def load(self) -> int:
        """How many requests were taken and have not ended, those of batches included."""
        load = len(self.by_request)
        for run in tuple(self.runs):
            if run.entry is None:  # else its entry has been counted
                load += run.left if run.request is None else 1
        return load

    def begin(self, run: RunInProgress) -> None:
        """Note a batch that is handled without entries, until ``end``."""
        self.runs.add(run)

    def end(self, run: RunInProgress) -> None:
        """Note that a batch has been handled, or that the rest of it is another's."""
        self.runs.discard(run)
        self.accepted += run.count()

    def enter_all(self) -> None:
        """Give an entry to each datagram that is being handled: someone is to look at them.

        For any thread. If the handler ends meanwhile, its entry goes at once.
        """
        for run in tuple(self.runs):
            self.accepted += run.count()
            self.enter(run)

    def enter(self, run: RunInProgress) -> Connection | None:
        """Give an entry to the datagram that a run handles; ``None`` if it handles none."""
        request, address = run.request, run.address
        if request is None:
            return None
        if run.entry is not None or id(request) in self.by_request:
            return self.by_request.get(id(request))
        number = next(self._numbers) if run.number is None else run.number
        connection = Connection(number, id(request), address)
        connection.reference = partial(_same, request)
        connection.runner = run.runner
        connection.state = ConnectionState.HANDLING
        if run.account is not None:
            run.account.entered(run, connection)
        self.by_request[connection.place] = connection
        run.entry = connection
        if run.request is not request and run.take_entry() is connection:
            self.discard(connection, run.account)
            return None
        return connection

    def discard(self, connection: Connection, account: Any) -> None:
        """Drop an entry that came too late: its handler has ended meanwhile."""
        if self.remove(connection) and account is not None:
            account.left(connection)

    def next_number(self) -> int:
        """The number of the next connection."""
        return next(self._numbers)

    def add(self, request: Any, peer: Any, owner: Owner | None = None) -> Connection | None:
        """Add a request; ``None`` if it is in progress already. For the accept loop alone.

        ``owner.ended(connection)`` is called where it ends without the hooks, and removes it. A bound
        method would be one for each connection.
        """
        owner = owner or self
        place = id(request)
        self.accepted += 1
        if place in self.by_request:
            return None
        connection = Connection(next(self._numbers), place, peer)
        if _Socket in type(request).__mro__:  # what only claims to be one has methods alone
            connection.key = key = request.fileno()
            stale = self._by_descriptor.get(key)
            self._by_descriptor[key] = connection
            if stale is not None:
                owner.ended(stale)
        elif not isinstance(request, tuple):  # a datagram
            connection.key = _descriptor_of(request)
        self.by_request[place] = connection
        connection.table, connection.owner = self, owner
        try:
            connection.reference = ref(request, connection)  # which is called at its end
        except TypeError:  # a tuple (a datagram): it owns no descriptor to close
            connection.reference = partial(_same, request)
        return connection

    def ended(self, connection: Connection) -> None:
        """Remove it: the table is its own ``Owner`` where it has no other."""
        self.remove(connection)

    def replace(self, connection: Connection, request: Any, owner: Owner) -> None:
        """Note that another object, ``request``, replaces the socket of a connection."""
        self._move(connection, id(request))
        connection.table, connection.owner = self, owner
        connection.reference = ref(request, connection)

    def note_freed(self, connection: Connection, owner: Owner) -> None:
        """A request was freed: closed without the server's hooks, or detached for a wrapper."""
        if connection.held_by is None and connection.place in self.by_request:
            key = connection.key
            if key is not None and self._by_descriptor.get(key) is connection and not _is_free(key):
                self._move(connection, -connection.id)  # another may get the id of the request
            else:
                owner.ended(connection)

    def _move(self, connection: Connection, place: int) -> None:
        if self.by_request.pop(connection.place, None) is not None:
            connection.place = place
            self.by_request[place] = connection

    def find(self, request: Any) -> Connection | None:
        """The connection that ``request`` belongs to."""
        connection = self.by_request.get(id(request))
        if connection is None and _Socket in type(request).__mro__:
            return self._by_descriptor.get(request.fileno())
        return connection

    def unfile(self, request: Any) -> Connection | None:
        """Find a request that is about to be closed, and free its descriptor for the next one."""
        connection = self.by_request.get(id(request)) or self.find(request)
        if connection is not None:
            key, connection.key = connection.key, None
            if key is not None and self._by_descriptor.get(key) is connection:
                self._by_descriptor.pop(key, None)
        return connection

    def remove(self, connection: Connection | None) -> bool:
        """Remove a connection. True for one caller only, and never while a process holds it."""
        if connection is None or connection.held_by is not None:
            return False
        if self.by_request.pop(connection.place, None) is None:
            return False
        key = connection.key
        if key is not None and self._by_descriptor.get(key) is connection:
            self._by_descriptor.pop(key, None)
        if self._shed:
            self._shed.discard(connection.id)
        if connection.conversation is not None:
            self.forget_key(connection)
        connection.close()
        return True

    def give_key(self, connection: Connection, key: Any) -> None:
        """Have ``view[key]`` be this connection, also where an older one has the key."""
        self.forget_key(connection)
        connection.conversation.key = key
        if key is not None:
            self._by_key[key] = connection

    def forget_key(self, connection: Connection) -> None:
        """Have the key of this connection find nothing, unless a later one has taken it over."""
        key = None if connection.conversation is None else connection.conversation.key
        if key is not None and self._by_key.get(key) is connection:
            self._by_key.pop(key, None)

    def hold(self, request: Any, process: int) -> None:
        """Keep the entry although this process closes its copy: ``process`` has the connection."""
        connection = self.unfile(request)
        if connection is not None:
            connection.held_by = process
            connection.state = ConnectionState.HANDLING
            self._move(connection, -connection.id)  # another may get the id of the request

    def release(self, process: int) -> Connection | None:
        """The connection that ``process`` held, for ``remove``, once that process has ended."""
        for connection in self.view:
            if connection.held_by == process:
                connection.held_by = None
                return connection
        return None

    def shed(self, candidates: Iterable[Connection] = (), *, but: Any) -> Connection | None:
        """The ``longest_idle`` connection of ``candidates``, to be cut; ``None`` if there is none.

        Of the oldest connections, where there are no candidates: those of before the policy was set.

        Also ``None`` when more than half were cut but have not ended: their handlers do not use their
        connection, and admitting still more would defeat the limit.
        """
        if 2 * len(self._shed) > len(self):
            return None
        idle = self.longest_idle(candidates or self.view, but=but)
        if idle is not None:
            idle.missed = "shed-idle"
            self._shed.add(idle.id)
        return idle

    def longest_idle(self, candidates: Iterable[Connection], *, but: Any) -> Connection | None:
        """The longest idle of the first ``candidates`` (each check costs a system call).

        Connections that were cut and have not ended yet do not count.
        """
        there = (c for c in candidates if c.request is not but and c.missed is None)
        oldest = itertools.islice(there, LOOKED_AT)
        looks = [(traffic.quiet, -c.id, c) for c in oldest if (traffic := c.traffic())]
        return max(looks)[2] if looks else None

    def forget_all(self) -> None:
        """Drop all: the server was dropped, and what is left is in processes that go on without it."""
        for connection in self.view:
            connection.table = connection.owner = None  # what counts it may have it too
        self.by_request.clear()
        self._by_descriptor.clear()
        self._by_key.clear()

    def forget_closed(self) -> None:
        """Drop the connections whose socket was closed without the server's hooks."""
        for connection in self.view:
            if connection.key is not None and _is_closed(connection.request, connection.key):
                self.remove(connection)


def _same(request: Any) -> Any:
    return request


def _is_closed(request: Any, descriptor: int) -> bool:
    """True unless the socket, or a wrapper around it, still has its descriptor."""
    return (request is None or request.fileno() == -1) and _is_free(descriptor)


def _descriptor_of(request: Any) -> int | None:
    """The descriptor of what wraps a socket and is none itself, as pyOpenSSL's connections do.

    It serves to cut the connection, and not to find it: the program may give it to several requests.
    """
    try:
        number = request.fileno()
    except Exception:
        return None
    return number if type(number) is int and number >= 0 else None


def _is_free(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return True
    return False
