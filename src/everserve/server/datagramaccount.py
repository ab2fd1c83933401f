# cython: binding=False, annotation_typing=False
"""The account of datagrams that are handled in batches: who is admitted, and what is emitted of each.

A run calls it around each handler, where there are limits, or someone subscribes. It does what the
``Flow`` and the ``Progress`` do for a connection, but makes no entry. What is not admitted at once goes
their way, and so does a handler that fails; one that someone looks at gets its entry then. One source
for both engines: ``_datagramaccount`` is this file, compiled, with the types of
``_datagramaccount.pxd``.
"""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from everserve.admission.access import AccessRules
from everserve.admission.control import AdmissionControl
from everserve.admission.deadlines import ConnectionDeadlines, TimeLimits
from everserve.admission.steps import STEPS
from everserve.admission.watchdog import Watchdog
from everserve.events import Accepted, Finished, Opened
from everserve.fibers import engines
from everserve.fibers.exits import FiberExit
from everserve.lifecycle.connection import Connection
from everserve.lifecycle.connections import ConnectionTable
from everserve.lifecycle.emitter import Emitter
from everserve.lifecycle.progress import Progress
from everserve.lifecycle.runsweep import RunSweep
from everserve.lifecycle.stages import ConnectionState
from everserve.server.flow import Flow
from everserve.settings import Settings, SettingsReader

if TYPE_CHECKING:
    from everserve.admission.limits import TokenBucket
    from everserve.sockets.runs import Run

__all__ = ["DatagramAccount", "can_keep_account", "needs_account"]

MOST_KNOWN = 4096
"""Peers whose access is remembered: as many as the cache of addresses has."""

_ACCEPTED, _HANDLING = ConnectionState.ACCEPTED, ConnectionState.HANDLING


def needs_account(settings: Settings) -> bool:
    """True unless there is at most a bound of how many are in progress, above which all wait."""
    return (
        (settings.has_limits and not settings.counts_alone)
        or (settings.max_connections is not None and settings.overload != "wait")
        or settings.request_timeout is not None
    )


def can_keep_account(settings: Settings) -> bool:
    """False where a step of admission changes the request, or a policy knows its entry."""
    return (
        settings.tls is None
        and settings.listener_tls is None
        and not settings.proxy_protocol
        and settings.overload != "shed-idle"
        and settings.admission_steps is STEPS
    )


class DatagramAccount:
    """Keeps the account of one server. The thread of the loop calls it, but for ``entered``."""

    def __init__(
        self,
        flow: Flow,
        *,
        settings: SettingsReader,
        control: AdmissionControl,
        progress: Progress,
        connections: ConnectionTable,
        emitter: Emitter,
        watchdog: Watchdog,
    ) -> None:
        self._flow = flow
        self._reader = settings
        self._control = control
        self._progress = progress
        self._connections = connections
        self._filed = connections.by_request
        self._emitter = emitter
        self._watchdog = watchdog
        maker = engines.part("making", "lifecycle").Maker
        self._accepted, self._opened, self._finished = map(maker, (Accepted, Opened, Finished))
        self._sweep: RunSweep | None = None
        self._note(settings.values)

    def _note(self, settings: Settings) -> None:
        """Keep what each datagram asks of the settings."""
        self._settings = settings
        self._has_checks = settings.has_limits
        self._access: AccessRules | None = settings.access
        self._known: dict[Any, bool] = {}
        self._most_of_peer = settings.max_connections_per_peer
        self._most = None if settings.overload == "wait" else settings.max_connections
        self._has_peer_rate = settings.accept_rate_per_peer is not None
        self._bucket: TokenBucket | None = self._control.bucket(settings)
        self._timeout = settings.request_timeout

    def begin(self, settings: Settings) -> None:
        """Note the settings for the next batch."""
        if settings is not self._settings:
            self._note(settings)

    def restart(self) -> None:
        """A run of the server begins: in a forked child the deadlines of the parent are not watched."""
        self._sweep = None

    # -- around each handler -------------------------------------------------------------------

    def admit(self, run: Run, request: Any, address: Any) -> bool:
        """Admit a datagram; false if it has gone another way. Not in the context of its handler."""
        if self._reader.changed or (self._has_checks and not self._is_admitted(address)):
            self._flow.admit(run.server, request, address)
            return False
        run.opened = False
        run.number = None
        run.began = monotonic()
        run.request, run.address = request, address
        if self._timeout is not None and self._sweep is None:
            self._begin_sweep()
        if self._emitter.subscribers:
            run.number = self._connections.next_number()
            self._emit(run, self._accepted.make(self._emitter.name, run.number, address))
        if run.cut and request.truncated:
            self._progress.truncated(request, address)
        return True

    def open(self, run: Run) -> None:
        """The handler begins; in its context."""
        run.opened = True
        if run.entry is not None:
            self._open_entry(run.entry)
        if run.number is not None:
            self._emit(run, self._opened.make(self._emitter.name, run.number, run.address))

    def close(self, run: Run, address: Any) -> None:
        """The handler has ended, and no one has looked."""
        if self._emitter.subscribers:
            if run.number is None:  # they have come while it ran
                run.number = self._connections.next_number()
                self._emit(run, self._opened.make(self._emitter.name, run.number, address))
            seconds = monotonic() - run.began
            self._emit(run, self._finished.make(self._emitter.name, run.number, address, seconds))

    def fail(self, run: Run, error: BaseException) -> None:
        """The handler has raised: what comes then needs an entry."""
        request = run.request
        connection = self._connections.enter(run)
        if not isinstance(error, Exception | FiberExit):  # ``handle_error`` is not called for those
            self._progress.failed(connection, request, error)

    def _emit(self, run: Run, event: Any) -> None:
        run.emitting = True
        try:
            self._emitter.announce(event)
        finally:
            run.emitting = False

    # -- admission -----------------------------------------------------------------------------

    def _is_admitted(self, address: Any) -> bool:
        """True if no limit is violated; else the flow finds out again which one is."""
        if self._access is not None and not self._is_permitted(address):
            return False
        if self._most_of_peer is not None:
            peers = self._control.peers
            if len(peers) and peers.count(address) >= self._most_of_peer:
                return False
        if self._most is not None and len(self._filed) >= self._most:
            return False
        settings = self._settings
        if self._has_peer_rate and not self._control.takes_peer_token(settings, address):
            return False
        if self._bucket is None or self._bucket.take():
            return True
        self._control.give_back(settings, address, peer_only=True)
        return False

    def _is_permitted(self, address: Any) -> bool:
        known = self._known
        permitted = known.get(address)
        if permitted is None:
            if len(known) >= MOST_KNOWN:
                known.clear()
            permitted = known[address] = self._access is None or self._access.permits(address)
        return permitted

    # -- entries, for who looks ----------------------------------------------------------------

    def entered(self, run: Run, connection: Connection) -> None:
        """Have an entry say what is known of the datagram. For any thread."""
        connection.started = connection.opened = run.began
        connection.state = _ACCEPTED
        if run.opened:
            self._open_entry(connection)
        settings = self._settings
        if settings.is_entered:
            self._control.enter(settings, connection)
        if settings.request_timeout is not None:
            connection.deadlines = ConnectionDeadlines(
                TimeLimits(request_timeout=settings.request_timeout),
                connection,
                partial(self._progress.deadline_missed, connection),
                began=run.began,
            )

    def left(self, connection: Connection) -> None:
        """Note that an entry was dropped."""
        self._control.leave(connection)

    def _open_entry(self, connection: Connection) -> None:
        connection.state = _HANDLING
        self._progress.note_begun(connection)

    # -- deadlines -----------------------------------------------------------------------------

    def _begin_sweep(self) -> None:
        timeout = self._timeout
        if timeout is not None:
            self._sweep = sweep = RunSweep(timeout, self._connections, self._end_sweep)
            self._watchdog.watch(sweep, monotonic() + timeout)

    def _end_sweep(self, sweep: RunSweep) -> None:
        if self._sweep is sweep:
            self._sweep = None
