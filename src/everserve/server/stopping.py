"""A stop in progress, and the report of how it went.

``BaseServer.stop`` makes one; it drains, waits, cuts and always comes to an end.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from everserve.events import Draining, Stopped
from everserve.server.lifecycle import State

if TYPE_CHECKING:
    from everserve.server.base import BaseServer
    from everserve.server.connection import Connection

__all__ = ["StopReport", "Stopping"]

AFTERMATH = 0.5
"""Seconds that handlers have to end after their connections were cut, before they are given up."""


@dataclass(frozen=True, slots=True)
class StopReport:
    """How a stop went.

    ``finished`` requests ended by themselves during the stop; those in ``cut`` were shut down after
    the grace; those in ``unfinished`` still run (a handler that does not look at its connection, or
    the one that called ``stop``); ``seconds`` is how long it took.
    """

    finished: int = 0
    cut: tuple[Connection, ...] = ()
    unfinished: tuple[Connection, ...] = ()
    seconds: float = 0.0

    def __str__(self) -> str:
        parts = [f"{self.finished} finished", f"{len(self.cut)} cut"]
        if self.unfinished:
            parts.append(f"{len(self.unfinished)} still running")
        return f"{', '.join(parts)} in {self.seconds:.2f} s"


class Stopping:
    """The one stop of a server, however many ask for it: a later call can only make it sooner."""

    def __init__(self, server: BaseServer, grace: float) -> None:
        self._server = server
        self._began = monotonic()
        self._conductor = server._runner()
        self._requests = len(server._inflight) - server._inflight.accepted
        self.deadline = self._began + grace
        self.report: StopReport | None = None

    @property
    def ends(self) -> float:
        """The moment (monotonic) after which the stop waits for nobody."""
        return self.deadline + (0.0 if self.report is not None else AFTERMATH)

    def is_left_to(self, thread: int) -> bool:
        """True if ``stop`` was called in that thread, which is to complete it."""
        return self.report is None and self._conductor == thread

    def is_over(self) -> bool:
        """True when the grace has passed."""
        return monotonic() >= self.deadline

    def join(self, grace: float) -> StopReport:
        """Be the second to call ``stop``: shorten the grace, and wait for the first unless he waits
        for us (a signal handler in his thread, or a request in progress)."""
        self.deadline = min(self.deadline, monotonic() + grace)
        life = self._server._life
        life.wake()
        life.bell.ring()
        own = self._own()
        if self._conductor != self._server._runner() and not own and not life.serving_here():
            self._server._wait_until(
                lambda: self.report is not None, lambda: self.deadline + 2 * AFTERMATH
            )
        return self.report or StopReport(unfinished=own)

    def conduct(self, grace: float) -> StopReport:
        """Be the first: drain, wait, cut, close."""
        server, life = self._server, self._server._life
        life.move(State.DRAINING)
        server._emit(Draining(grace))
        own = self._own()
        if life.serving_here():  # we stand in its way: serve_forever completes the stop
            return StopReport(unfinished=own)
        if life.session is None:
            server._stop_listening()
        return self.complete(own)

    def complete(self, own: tuple[Connection, ...] = ()) -> StopReport:
        """Wait for the requests in progress, cut what is left at the deadline, and report."""
        server = self._server
        server._inflight.forget_closed()
        cut: tuple[Connection, ...] = ()
        if not server._await_requests(lambda: self._is_quiet(own), lambda: self.deadline):
            server._inflight.forget_closed()
            cut = tuple(c for c in server._inflight.view if c not in own)
            server._cut_requests(cut)
            over = monotonic() + AFTERMATH
            server._await_requests(lambda: self._is_quiet(own), lambda: over)
        return self._close(cut, own)

    def _is_quiet(self, own: tuple[Connection, ...]) -> bool:
        """True when the accept loop has ended and only the caller's own requests are left."""
        server = self._server
        return not server._life.serving_elsewhere() and len(server._inflight) <= len(own)

    def _own(self) -> tuple[Connection, ...]:
        here = self._server._runner()
        return tuple(c for c in self._server._inflight.view if c.runner == here)

    def _close(self, cut: tuple[Connection, ...], own: tuple[Connection, ...]) -> StopReport:
        server = self._server
        left = tuple(server._inflight.view)
        requests = self._requests + server._inflight.accepted
        self.report = StopReport(
            finished=max(0, requests - len({*cut, *left})),
            cut=cut,
            unfinished=left,
            seconds=monotonic() - self._began,
        )
        if left:  # server_close() is not to wait for those that would not end
            server.block_on_close = False
        with server._replying_later(own, max(self.deadline, monotonic()) + AFTERMATH):
            server._close_listener()
            server.server_close()
        server._life.close()
        server._emit(Stopped(self.report))
        server._life.bell.ring()
        return self.report
