# cython: binding=False, annotation_typing=False
"""How far each connection is: its entry, its counts and its events change here, together.

The flow of a request, the deadlines and the strategies report to it. It emits the events, in
this order:

    Accepted -> Refused
    Accepted -> Opened -> Finished or Failed or Moved
    Arrived -> Finished or Failed or Moved

``DeadlineMissed``, ``Shed`` and ``Stayed`` may come between two of these. A request that ends with an
error before its handler has begun is refused. Where the program makes its handlers itself
(``finish_request``), it is noted as opened when it ends.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from time import monotonic
from typing import Any

from everserve.admission.control import AdmissionControl, AdmissionLimits
from everserve.errors import RemoteError
from everserve.events import (
    Accepted,
    Arrived,
    DeadlineMissed,
    Dropped,
    Failed,
    Finished,
    Moved,
    Opened,
    Refused,
    ServerEvent,
    SessionOverflowed,
    Shed,
    Stayed,
    Truncated,
)
from everserve.lifecycle.connection import Connection
from everserve.lifecycle.connections import LOOKED_AT, ConnectionTable
from everserve.lifecycle.emitter import Emitter
from everserve.lifecycle.faults import peer_is_gone
from everserve.lifecycle.outcome import Outcome
from everserve.lifecycle.stages import ConnectionState
from everserve.lifecycle.state import LifeCycle
from everserve.lifecycle.tally import REPORT_EVERY, Tally
from everserve.sockets.datagrams import Datagram

__all__ = ["Progress"]

COMPILED = __name__ == "everserve.lifecycle._progress"

_HANDLING, _CLOSED = ConnectionState.HANDLING, ConnectionState.CLOSED


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
        self._notifier = life.notifier
        self.on_handshake_done: Callable[[], object] | None = None
        self.on_ended: Callable[[], object] | None = None  # where others need the count
        self._truncations = Tally()
        self._overflows = Tally()
        self._drops_lock = threading.Lock()
        self._drops = self._unreported = 0
        self._drops_reported = float("-inf")

    def accepted(self, request: Any, peer: Any) -> Connection | None:
        """Add a request that was accepted from the kernel."""
        connection = self._connections.add(request, peer, self)
        if connection is not None and self._emitter.subscribers:
            self._emit(connection, Accepted(connection.id, peer))
        return connection

    def _begins(self, connection: Connection) -> bool:
        """True for one caller only: it decides whether the request is opened or refused."""
        if COMPILED:  # no other thread runs in C between the two
            unbegun = connection.unbegun
            connection.unbegun = False
            return unbegun
        caller = object()
        return vars(connection).setdefault("beginner", caller) is caller  # one step, without a lock

    def note_begun(self, connection: Connection) -> None:
        """Note that the event of its beginning was emitted elsewhere."""
        self._begins(connection)

    def _emit(self, connection: Connection, event: ServerEvent) -> None:
        if self._emitter.subscribers:
            connection.order().emit(self._emitter, event)

    def opened(self, connection: Connection, peer: Any, here: Callable[[], int]) -> bool:
        """Note that the handler begins, in the thread or fiber that ``here()`` identifies.

        False if the connection has been refused meanwhile: its handler must not begin.
        """
        if not self._begins(connection):
            return not connection.failed
        if connection.in_handshake:
            self.handshake_done(connection)
        if connection.runner is None:
            connection.runner = here()
        connection.opened = monotonic()
        connection.state = _HANDLING
        if self._emitter.subscribers:
            self._emit(connection, Opened(connection.id, peer))
        return True

    def arrived(self, request: Any, peer: Any, accepted: float, pause: float) -> Connection:
        """Add a connection that another process has ``accepted`` (monotonic), and opened.

        It does not count as accepted here.
        """
        connection = self._connections.add(request, peer, self)
        self._connections.accepted -= 1
        assert connection is not None  # a socket that was made just now
        connection.started = accepted
        self._begins(connection)
        self._emit(connection, Arrived(connection.id, peer, pause))
        return connection

    def resumed(self, connection: Connection, here: Callable[[], int]) -> None:
        """Note that the handler of a connection that has arrived goes on, in ``here()``."""
        if connection.runner is None:
            connection.runner = here()
        connection.opened = monotonic()
        connection.state = _HANDLING

    def moved(self, connection: Connection) -> None:
        """Note that a connection goes on in another process, before its copy here is closed."""
        self._connections.moved += 1
        self._emit(connection, Moved(connection.id, connection.peer, connection.age))

    def stayed(self, connection: Connection, reason: str) -> None:
        """Report a connection that was to move, and does not."""
        self._emit(connection, Stayed(connection.id, connection.peer, reason))

    def opened_elsewhere(self, connection: Connection, peer: Any) -> None:
        """Note that the handler has begun in another process, which reports the peer's address."""
        connection.peer = peer
        if self._begins(connection):
            self._emit(connection, Opened(connection.id, peer))

    def truncated(self, datagram: Datagram, peer: Any) -> None:
        """Report a datagram that was admitted, and whose end is lost: at most once a second."""
        if count := self._truncations.add(monotonic()):
            self._emitter.log(Truncated(peer, len(datagram[0]), count))

    def overflowed(self, peer: Any) -> None:
        """Report that a datagram for the session of ``peer`` was dropped: at most once a second."""
        if count := self._overflows.add(monotonic()):
            self._emitter.log(SessionOverflowed(peer, count))

    def dropped(self, total: int, *, last: bool = False) -> None:
        """Count what the kernel has dropped: ``total`` since the socket was made.

        Reported at most once a second; ``last``: what was not reported yet, now.
        """
        with self._drops_lock:
            count = (total - self._drops) & 0xFFFF_FFFF  # as the kernel counts
            if 0 < count < 0x8000_0000:  # else another thread has read a later one
                self._drops = total
                self._unreported += count
                self._control.count_refusal("receive_buffer", count)
        now = monotonic()
        if self._unreported and (last or now - self._drops_reported >= REPORT_EVERY):
            unreported, self._unreported, self._drops_reported = self._unreported, 0, now
            self._emitter.log(Dropped(unreported))

    def refused(
        self, connection: Connection | None, reason: str, error: BaseException | None = None
    ) -> None:
        """Count a request that does not reach its handler, and report why."""
        if connection is None:
            self._control.count_refusal(reason)
        elif self._begins(connection):
            connection.failed = True
            self._control.count_refusal(reason)
            self._emit(connection, Refused(connection.id, connection.peer, reason, error))
        else:  # its handler has begun: raised there, this is an error as any other
            self.failed(connection, None, error or RuntimeError(reason), gone=False)

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
        if self._begins(connection):
            self._emit(connection, Opened(connection.id, connection.peer))
        connection.failed = True
        if self._emitter.subscribers:
            if gone is None:
                gone = peer_is_gone(error, request, connection.peer, connection.tls)
            self._emit(connection, Failed(connection.id, connection.peer, error, gone))

    def log_failed(
        self, connection: Connection | None, peer: Any, error: BaseException, gone: bool
    ) -> None:
        """Log what a request has raised; one debug line where its peer disconnected."""
        event = Failed(0 if connection is None else connection.id, peer, error, gone)
        if gone:
            self._emitter.write(event, logging.DEBUG)
        else:
            self._emitter.write(event, event.level, exc_info=error)

    def ended_elsewhere(self, connection: Connection, outcome: Outcome) -> None:
        """Report how a request ended in another process."""
        error = RemoteError(outcome.error) if outcome.error else None
        if outcome.missed and not connection.missed:
            connection.missed = outcome.missed
            missed = DeadlineMissed(connection.id, connection.peer, outcome.missed, outcome.is_cut)
            self._emit(connection, missed)
        if outcome.refused:
            self.refused(connection, outcome.refused, error)
        elif outcome.failed:
            self.failed(connection, None, error or RemoteError("unknown"), outcome.peer_gone)

    def deadline_missed(self, connection: Connection | None, name: str) -> None:
        """Cut a connection that missed a deadline; its handler ends with it."""
        if connection is None or connection.missed or connection.state is _CLOSED:
            return
        connection.missed = name
        peer = connection.peer

        def emit(is_cut: bool) -> None:
            self._emit(connection, DeadlineMissed(connection.id, peer, name, is_cut))

        connection.cut(emit)

    def make_room(self, request: Any, peer: Any) -> bool:
        """Cut an idle connection to make room for ``request`` of ``peer``; false if there is none."""
        idle = self._connections.shed(self._control.crowd.candidates(peer, LOOKED_AT), but=request)
        if idle is None:
            return False
        self._control.crowd.remove(idle)
        shed = Shed(idle.id, idle.peer)
        return idle.cut(lambda is_cut: self._emit(idle, shed) if is_cut else None)

    def make_room_for_handshake(self, peer: Any) -> bool:
        """Cut the oldest handshake of the peer that has the most; false if there is none to cut."""
        return any(map(self._cut_handshake, self._control.handshaking.candidates(peer, 1)))

    def make_room_of_slow_handshake(self) -> bool:
        """Cut a handshake that takes too long while others wait; false if there is none."""
        connection, left = self._control.slowest_handshake() or (None, 0.0)
        return connection is not None and not left and self._cut_handshake(connection)

    def _cut_handshake(self, connection: Connection) -> bool:
        connection.missed = "max_handshakes"
        if not connection.cut():
            connection.missed = None
            return False
        self._control.handshake_done(connection)
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
        """Count a TLS handshake in progress, but none of a connection that was cut before it began."""
        if connection is not None and not connection.in_handshake and connection.missed is None:
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
        if connection.counted is not None or connection.in_handshake or connection.in_crowd:
            self._control.leave(connection)
        unbegun = self._begins(connection)
        if self._emitter.subscribers and not connection.failed:
            if unbegun:
                self._emit(connection, Opened(connection.id, connection.peer))
            self._emit(connection, Finished(connection.id, connection.peer, connection.age))
        if self._life.gated:
            self._life.wake()
        if self.on_ended is not None:
            self.on_ended()
        if self._notifier.waiters:
            self._notifier.notify()
