"""A stop in progress, and the report of how it went.

``Conductor.stop`` makes one; it drains, waits, cuts and always comes to an end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from everserve.concurrency.strategy import Strategy
from everserve.events import Draining, Stopped
from everserve.lifecycle.connection import Connection
from everserve.lifecycle.connections import ConnectionTable
from everserve.lifecycle.emitter import Emitter
from everserve.lifecycle.state import LifeCycle, ServerState
from everserve.server.hooks import Hooks
from everserve.server.listener import listener_of

__all__ = ["LAST_WAIT", "Stop", "StopReport", "sum_of"]

LAST_WAIT = 0.5
"""Seconds that handlers have to end after their connections were cut, before they are given up."""

PATIENCE = 5.0
"""Seconds beyond its end that another caller of a stop waits for it: a busy machine may be late."""


@dataclass(frozen=True, slots=True)
class StopReport:
    """How a stop went.

    ``finished`` requests ended by themselves during the stop; those in ``cut`` were shut down after
    the grace; those in ``unfinished`` still run (a handler that does not look at its connection, or
    the one that called ``stop``); ``seconds`` is how long it took; ``moved`` connections go on in
    another worker. ``complete`` is false if the report
    is not the last word: the stop still goes on, in another thread or process, or the accept loop did
    not end.
    """

    finished: int = 0
    cut: tuple[Connection, ...] = ()
    unfinished: tuple[Connection, ...] = ()
    seconds: float = 0.0
    complete: bool = True
    moved: int = 0

    def __str__(self) -> str:
        parts = [f"{self.finished} finished", f"{len(self.cut)} cut"]
        if self.moved:
            parts.append(f"{self.moved} moved")
        if self.unfinished:
            parts.append(f"{len(self.unfinished)} still running")
        ended = "" if self.complete else ", not complete"
        return f"{', '.join(parts)} in {self.seconds:.2f} s{ended}"


def sum_of(reports: list[StopReport]) -> StopReport:
    """The report of several servers that stopped together."""
    return StopReport(
        finished=sum(report.finished for report in reports),
        cut=tuple(connection for report in reports for connection in report.cut),
        unfinished=tuple(connection for report in reports for connection in report.unfinished),
        seconds=max((report.seconds for report in reports), default=0.0),
        complete=all(report.complete for report in reports),
        moved=sum(report.moved for report in reports),
    )


class Stop:
    """The one stop of a server, however many ask for it: a later call can only make it sooner.

    ``close_early(hooks)`` closes a listener from which connections are accepted.
    """

    def __init__(
        self,
        grace: float,
        *,
        connections: ConnectionTable,
        life: LifeCycle,
        strategy: Strategy,
        emitter: Emitter,
        close_early: Callable[[Hooks], object],
    ) -> None:
        self._connections = connections
        self._life = life
        self._strategy = strategy
        self._emitter = emitter
        self._close_early = close_early
        self._grace = grace
        self._began = monotonic()
        self._conductor = strategy.here()
        self._requests = len(connections.view) - connections.accepted  # what waits is not accepted
        self._own: tuple[Connection, ...] = ()
        self._reported: float | None = None
        self.deadline = self._began + grace
        self.report: StopReport | None = None
        self._is_emitted = False  # its end has been emitted: whoever has called it too may go on
        self.is_closing = False  # the server is being closed by this stop

    @property
    def ends(self) -> float:
        """The moment (monotonic) after which the stop waits for nothing."""
        return self.deadline + (0.0 if self.report is not None else LAST_WAIT)

    @property
    def is_of_request(self) -> bool:
        """True if a request of the server has asked for it: its reply comes after the stop."""
        return bool(self._own)

    @property
    def gave_up(self) -> bool:
        """True if requests were left that would not end."""
        return self.report is not None and bool(self.report.unfinished)

    @property
    def last(self) -> float:
        """The moment (monotonic) after which the close waits for nothing."""
        return max(self.deadline, self._reported or monotonic()) + LAST_WAIT

    def is_left_to(self, runner: int) -> bool:
        """True if ``stop`` was called in that thread, which is to complete it."""
        return self.report is None and self._conductor == runner

    def is_over(self) -> bool:
        """True when the grace has passed."""
        return monotonic() >= self.deadline

    def begin(self) -> None:
        """Be the first: from now on the server drains."""
        self._strategy.stopping(self)  # first: the accept loop may end with the change of state
        self._life.move(ServerState.DRAINING)
        self._emitter.emit(Draining(self._grace))
        self._own = self._requests_here()
        self._strategy.drain()

    def conduct(self, hooks: Hooks) -> StopReport:
        """Wait for the drain and the requests, cut what is left, close.

        On the thread that serves it would wait for itself: the end of the run completes it.
        """
        if self._life.serving_here():
            return self._so_far(self._own)
        if self._life.session is None:
            self._close_early(hooks)
        return self.complete(hooks, self._own)

    def hurry(self, grace: float) -> None:
        """Be the second to call: shorten the grace."""
        self.deadline = min(self.deadline, monotonic() + grace)
        self._life.wake()
        self._life.notifier.notify()

    def join(self) -> StopReport:
        """Wait for the first, unless it waits for this one.

        That is so in a signal handler on its thread, and in a request in progress.
        """
        own = self._requests_here()
        if self._conductor != self._strategy.here() and not own and not self._life.serving_here():
            self._strategy.wait_until(
                lambda: self._is_emitted, lambda: self.deadline + 2 * LAST_WAIT + PATIENCE
            )
        return self.report or self._so_far(tuple(self._connections.view))

    def _so_far(self, unfinished: tuple[Connection, ...]) -> StopReport:
        """The report of a stop that goes on."""
        seconds = monotonic() - self._began
        return StopReport(unfinished=unfinished, seconds=seconds, complete=False)

    def complete(self, hooks: Hooks, own: tuple[Connection, ...] = ()) -> StopReport:
        """Wait for the requests in progress, cut what is left at the deadline, and report."""
        connections, strategy = self._connections, self._strategy
        connections.forget_closed()
        cut: tuple[Connection, ...] = ()
        if not strategy.wait_for_requests(lambda: self._is_quiet(own), lambda: self.deadline):
            connections.forget_closed()
            cut = tuple(c for c in connections.view if c not in own)
            strategy.cut(hooks, cut)
            over = monotonic() + LAST_WAIT
            strategy.wait_for_requests(lambda: self._is_quiet(own), lambda: over)
        return self._close(hooks, cut, own)

    def _is_quiet(self, own: tuple[Connection, ...]) -> bool:
        """True when the accept loop has ended and only the caller's own requests are left."""
        return not self._life.serving_elsewhere() and len(self._connections) <= len(own)

    def _requests_here(self) -> tuple[Connection, ...]:
        here = self._strategy.here()
        return tuple(c for c in self._connections.view if c.runner == here)

    def _close(
        self, hooks: Hooks, cut: tuple[Connection, ...], own: tuple[Connection, ...]
    ) -> StopReport:
        left = tuple(self._connections.view)
        requests = self._requests + self._connections.accepted
        self._reported = monotonic()
        self.report = StopReport(
            finished=max(0, requests - len({*cut, *left}) - self._connections.moved),
            cut=cut,
            unfinished=left,
            seconds=self._reported - self._began,
            complete=not self._life.serving_elsewhere(),
            moved=self._connections.moved,
        )
        self._close_early(hooks)
        # A request of this very thread replies through the listener of datagrams: its end closes it.
        self._life.keeps_listener = bool(own) and not listener_of(hooks).accepts_connections
        self.is_closing = True
        try:
            hooks.server_close()
        finally:
            self.is_closing = False
            self._life.close()
            self._emitter.emit(Stopped(self.report))
            self._is_emitted = True
            self._life.notifier.notify()
        return self.report
