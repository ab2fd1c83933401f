"""Several servers that are served together: one thread, one accept loop."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from everserve.events import Subscriber
from everserve.lifecycle.arrival import Arrival
from everserve.lifecycle.connection import Connection
from everserve.options import check_grace
from everserve.server.arrivals import Arrivals, NotMovable, slot_of
from everserve.server.balance import Balance, Board
from everserve.server.conductor import Conductor, serve_together
from everserve.server.departure import Departing, Departure, Parcel
from everserve.server.elsewhere import Elsewhere
from everserve.server.served import Served
from everserve.server.servingthread import ServingThread
from everserve.server.stop import StopReport, sum_of
from everserve.sockets.attaching import woken_to_attach
from everserve.sockets.listening import SocketFile, is_filesystem_path
from everserve.sockets.tls import TLS

__all__ = ["ServerGroup"]

ServerT = TypeVar("ServerT", bound=Served)


class ServerGroup(Generic[ServerT]):
    """Servers with one thread and one accept loop (under fibers: one hub) for all of them.

    ``servers`` are served and stopped together. A handler of one may use what belongs to a handler of
    another. *Ownership*: the servers are the group's, and close with it.
    """

    def __init__(self, servers: Sequence[ServerT]) -> None:
        self.servers: tuple[ServerT, ...] = tuple(servers)
        self._turns = -1
        self._members: list[tuple[Conductor, Any]] = [
            (server._everserve.conductor, server) for server in self.servers
        ]

    @property
    def addresses(self) -> tuple[Any, ...]:
        """The ``server_address`` of each."""
        return tuple(server.server_address for server in self.servers)

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Handle requests of all servers until each is shut down or stopped. Raises as one server's."""
        serve_together(self._members, poll_interval)

    def shutdown(self) -> None:
        """End ``serve_forever``, as ``BaseServer.shutdown`` does for each."""
        begun = [conductor.begin_shutdown() for conductor, _ in self._members]
        for (conductor, _), ended in zip(self._members, begun, strict=True):
            conductor.finish_shutdown(ended)

    def stop(self, grace: float = 5.0) -> StopReport:
        """Stop all servers at once, with one ``grace``; what their reports say, summed up."""
        begun = [conductor.begin_stop(grace) for conductor, _ in self._members]
        return sum_of(
            [
                conductor.finish_stop(server, stop)
                for (conductor, server), stop in zip(self._members, begun, strict=True)
            ]
        )

    @contextmanager
    def running(
        self, *, grace: float = 5.0, poll_interval: float = 0.5
    ) -> Iterator[tuple[Any, ...]]:
        """Serve in a background thread while the block runs; the block gets the ``addresses``."""
        grace = check_grace(grace)
        lives = [conductor.life for conductor, _ in self._members]
        name = f"ServerGroup {', '.join(map(repr, self.addresses))}"
        thread = ServingThread(lambda: self.serve_forever(poll_interval), lives, name)
        thread.start_serving()
        try:
            with woken_to_attach():
                yield self.addresses
        finally:
            self.stop(grace)
        thread.join_and_raise(grace)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call ``subscriber(event)`` for every event of every server; returns what ends that."""
        ends = [server._everserve.emitter.subscribe(subscriber) for server in self.servers]

        def unsubscribe() -> None:
            for end in ends:
                end()

        return unsubscribe

    # -- of a worker, and of those that supervise it ------------------------------------------------

    def is_turning(self) -> bool:
        """True if the accept loop has turned since the last call; has it turn again.

        Always true where nothing serves, and of serial servers, whose handlers run in the loop.
        """
        turns = sum(conductor.life.turns for conductor, _ in self._members)
        lives = [conductor.life for conductor, _ in self._members]
        can_tell = all(conductor.strategy.name != "serial" for conductor, _ in self._members)
        stands = turns == self._turns and any(life.accepting for life in lives)
        self._turns = turns
        for life in lives:
            life.wake()
        return not (stands and can_tell)

    def accepted(self) -> int:
        """How many requests were accepted so far."""
        return sum(server._everserve.connections.accepted for server in self.servers)

    def reports(self) -> tuple[StopReport | None, ...]:
        """The report of the stop of each server; ``None`` for one that has not ended."""
        stops = [conductor.life.stop for conductor, _ in self._members]
        return tuple(None if stop is None else stop.report for stop in stops)

    def balance(self, boards: Sequence[Board], place: int) -> None:
        """Take no more connections than the other processes that accept from the same listeners.

        ``boards``, one for each server, are shared with them; this process has ``place``.
        """
        for server, board in zip(self.servers, boards, strict=True):
            server._everserve.share(Balance(board, place))

    def moves_connections(self) -> bool:
        """True if the connections of a server may move to another process."""
        return any(slot_of(server.RequestHandlerClass) is not None for _, server in self._members)

    def depart(
        self, counts: Departing, on_ready: Callable[[Sequence[Parcel]], object]
    ) -> tuple[Departure, ...]:
        """Have connections move: before a stop, while all servers serve."""
        departures = tuple(
            server._everserve.depart(server, place_of(server), counts, on_ready)
            for _, server in self._members
        )
        for departure in departures:
            departure.begin()
        return departures

    def unpack(self, place: str, data: bytes, descriptor: int) -> tuple[Arrivals, Arrival]:
        """A connection of another process, and where to put it. Raises ``NotMovable``.

        *Ownership*: the descriptor is the result's; the caller's if this raises.
        """
        for conductor, server in self._members:
            slot = slot_of(server.RequestHandlerClass)
            if slot is None or place_of(server) != place:
                continue
            if not conductor.life.accepting:
                raise NotMovable("worker")
            arrival = slot.unpack(server.RequestHandlerClass, server, data, descriptor)
            return server._everserve.acceptor.arrivals, arrival
        raise NotMovable("handler")

    def represent(self, elsewhere: Sequence[Elsewhere | None]) -> None:
        """Have each server say what its workers know; ``None``: it is served in this process."""
        for server, one in zip(self.servers, elsewhere, strict=True):
            server._everserve.elsewhere = one

    def adopt_files(self) -> None:
        """Remove the files of Unix sockets that another process has bound, in its place."""
        for conductor, server in self._members:
            if server.address_family == socket.AF_UNIX and is_filesystem_path(
                server.server_address
            ):
                conductor.socket_file = SocketFile(server.socket, server.server_address)

    def leave_files(self) -> None:
        """Leave the files of Unix sockets to a process that goes on with them."""
        for conductor, _ in self._members:
            conductor.socket_file = None

    def leave_listeners(self) -> None:
        """Close the listeners of this process; others that share them go on."""
        for _, server in self._members:
            server.socket.close()

    def connections(self) -> tuple[Connection, ...]:
        """The requests in progress of all servers."""
        return tuple(c for server in self.servers for c in server._everserve.connections.view)

    def has_tls(self) -> bool:
        """True if a server has TLS, whose certificates can be reloaded."""
        return bool(self._tls())

    def reload_tls(self) -> None:
        """Take renewed certificates, each once. Raises ``TLSConfigError`` where a file is broken."""
        for tls in self._tls():
            tls.reload()

    def _tls(self) -> list[TLS]:
        found = [server._everserve.settings.read().tls for server in self.servers]
        return list({id(tls): tls for tls in found if tls is not None}.values())

    def request_threads(self) -> tuple[threading.Thread, ...]:
        """The threads that run requests, and idle workers; not that of ``serve_forever``."""
        return tuple(t for conductor, _ in self._members for t in conductor.strategy.threads())

    def server_close(self) -> None:
        """Close all servers."""
        for conductor, server in self._members:
            conductor.remove_file()
            server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.server_close()


def place_of(server: Any) -> str:
    """What another process that serves at the same address knows a server by."""
    return f"{int(server.address_family)} {server.server_address!r}"
