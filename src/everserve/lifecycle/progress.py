"""How far each connection is: its entry, its counts and its events change here, together.

The flow of a request, the deadlines and the strategies report to it; it emits the events.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from time import monotonic
from typing import Any

from everserve.admission.control import AdmissionControl, AdmissionLimits
from everserve.errors import RemoteError
from everserve.events import (
    Accepted,
    DeadlineMissed,
    Failed,
    Finished,
    Opened,
    Refused,
    Shed,
    Truncated,
)
from everserve.lifecycle.connection import Connection, ConnectionState
from everserve.lifecycle.connections import ConnectionTable
from everserve.lifecycle.emitter import Emitter
from everserve.lifecycle.faults import peer_is_gone
from everserve.lifecycle.outcome import Outcome
from everserve.lifecycle.state import LifeCycle
from everserve.sockets.datagrams import Datagram

__all__ = ["Progress"]

_REPORT_EVERY = 1.0
"""Seconds between two reports of truncated datagrams: anyone can send them, in any number."""


class Progress:
    """Moves connections from accepted to closed. A connection of ``None`` is one without an entry.

    ``on_handshake_done`` is called, with no argument, when a TLS handshake is over: a forked child
    reports it to its parent.
    """

    def __init__(
        self,
        connections: ConnectionTable,
        control: AdmissionControl,
        emitter: Emitter,
        life: LifeCycle,
    ) -> None:
        self._connections = connections
        self._control = control
        self._emitter = emitter
        self._life = life
        self.on_handshake_done: Callable[[], object] | None = None
        self._truncations = 0
        self._truncations_reported = float("-inf")

    def accepted(self, request: Any, peer: Any) -> Connection | None:
        """Add a request that was accepted from the kernel."""
        connection = self._connections.add(request, peer, self.ended)
        if connection is not None and self._emitter.subscribers:
            self._emitter.emit(Accepted(connection.id, peer))
        return connection

    def opened(self, connection: Connection, peer: Any, here: Callable[[], int]) -> None:
        """Note that the handler begins, in the thread or fiber that ``here()`` identifies."""
        if connection.in_handshake:
            self.handshake_done(connection)
        if connection.runner is None:
            connection.runner = here()
        connection.opened = monotonic()
        connection.state = ConnectionState.HANDLING
        if self._emitter.subscribers:
            self._emitter.emit(Opened(connection.id, peer))

    def opened_elsewhere(self, connection: Connection, peer: Any) -> None:
        """Note that the handler has begun in another process, which reports the peer's address."""
        connection.peer = peer
        self._emitter.emit(Opened(connection.id, peer))

    def truncated(self, datagram: Datagram, peer: Any) -> None:
        """Report a datagram that was admitted, and whose end is lost: at most once a second."""
        self._truncations += 1
        now = monotonic()
        if now - self._truncations_reported < _REPORT_EVERY:
            return
        count, self._truncations, self._truncations_reported = self._truncations, 0, now
        self._emitter.log(Truncated(peer, len(datagram[0]), count))

    def refused(
        self, connection: Connection | None, reason: str, error: BaseException | None = None
    ) -> None:
        """Count a request that does not reach its handler, and report why."""
        self._control.count_refusal(reason)
        if connection is None or connection.failed:
            return
        connection.failed = True
        if self._emitter.subscribers:
            self._emitter.emit(Refused(connection.id, connection.peer, reason, error))

    def failed(
        self,
        connection: Connection | None,
        request: Any,
        error: BaseException,
        gone: bool | None = None,
    ) -> None:
        """Report, once, that a request failed. ``gone``: its peer disconnected; ``None``: find out."""
        if connection is None or connection.failed:
            return
        connection.failed = True
        if self._emitter.subscribers:
            if gone is None:
                gone = peer_is_gone(error, request, connection.peer, connection.tls)
            self._emitter.emit(Failed(connection.id, connection.peer, error, gone))

    def ended_elsewhere(self, connection: Connection, outcome: Outcome) -> None:
        """Report how a request ended in another process."""
        error = RemoteError(outcome.error) if outcome.error else None
        if outcome.missed and not connection.missed:
            connection.missed = outcome.missed
            missed = DeadlineMissed(connection.id, connection.peer, outcome.missed, outcome.is_cut)
            self._emitter.emit(missed)
        if outcome.refused:
            self.refused(connection, outcome.refused, error)
        elif outcome.failed:
            self.failed(connection, None, error or RemoteError("unknown"), outcome.peer_gone)

    def deadline_missed(self, connection: Connection | None, name: str) -> None:
        """Cut a connection that missed a deadline; its handler ends with it."""
        if connection is None or connection.missed or connection.state is ConnectionState.CLOSED:
            return
        connection.missed = name
        peer = connection.peer
        emit = self._emitter.emit
        connection.cut(lambda is_cut: emit(DeadlineMissed(connection.id, peer, name, is_cut)))

    def make_room(self, request: Any) -> bool:
        """Cut the longest idle connection to make room for ``request``; false if there is none."""
        idle = self._connections.shed(but=request)
        if idle is None:
            return False
        self._emitter.emit(Shed(idle.id, idle.peer))
        idle.cut()
        return True

    def client_violation(
        self,
        limits: AdmissionLimits,
        connection: Connection | None,
        address: Any,
        waived: Collection[str],
    ) -> str | None:
        """The limit that the client behind a proxy violates; if none, it is counted."""
        return self._control.client_violation(limits, connection, address, waived)

    def handshake_started(self, connection: Connection | None) -> None:
        """Count a TLS handshake in progress."""
        if connection is not None and not connection.in_handshake:
            self._control.handshake_started(connection)

    def handshake_done(self, connection: Connection | None) -> None:
        """Note that a TLS handshake is over: another one may begin."""
        if connection is not None and self._control.handshake_done(connection):
            self._life.wake()
        if self.on_handshake_done is not None:
            self.on_handshake_done()

    def ended(self, connection: Connection | None) -> None:
        """Note, once, that a connection is closed."""
        if connection is None or not self._connections.remove(connection):
            return
        if connection.counted is not None or connection.in_handshake:
            self._control.leave(connection)
        if self._emitter.subscribers and not connection.failed:
            self._emitter.emit(Finished(connection.id, connection.peer, connection.age))
        if self._life.gated:
            self._life.wake()
        self._life.notifier.notify()
