"""The processes that a supervisor has started, as it sees them: templates and workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from everserve.process.channel import Channel
from everserve.process.orders import Order, Reported, Share, Stop
from everserve.process.workforce import MOST_WORKERS

__all__ = ["TemplateProcess", "WorkerProcess"]


@dataclass(eq=False, slots=True)
class TemplateProcess:
    """A process that has loaded the code, or does. ``watched`` is its pidfd."""

    pid: int
    channel: Channel
    watched: int
    is_ready: bool = False
    moves: bool = False  # its connections may go to other workers
    most: tuple[int, str] = (MOST_WORKERS, "")  # workers that its servers suit, and why no more
    has_accepted: bool = False  # one of its workers has
    failures: int = 0  # workers that ended before one has accepted
    is_ending: bool = False

    def end(self) -> None:
        """Have it end with its last worker; at once, if it loads the code yet."""
        self.is_ending = True
        if not self.is_ready or not self.channel.send(Stop()):
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        _send_signal(self.watched, signal.SIGKILL)

    def close(self) -> None:
        """Close what the supervisor holds of it."""
        self.channel.close()
        os.close(self.watched)


@dataclass(eq=False, slots=True)
class WorkerProcess:
    """A process that serves, or begins to. Times are of ``time.monotonic``.

    ``requests``: how many it may accept. ``beat``: when its accept loop was last seen to turn.
    ``deadline``: when it is killed, if it has not ended. ``watched`` is its pidfd, -1 before it runs.
    """

    place: int
    share: Share
    template: TemplateProcess
    channel: Channel
    born: float
    requests: float
    pid: int = 0
    watched: int = -1
    beat: float = 0.0
    is_accepting: bool = False
    is_retiring: bool = False  # it stops once its successor accepts
    is_stopping: bool = False  # it has the order
    is_moving: bool = False  # meanwhile its connections go to those that serve
    is_stalled: bool = False
    deadline: float | None = None
    report: Reported | None = None
    refusals: Sequence[Mapping[str, int]] = field(default=())

    @property
    def is_leaving(self) -> bool:
        """True if it counts no more."""
        return self.is_retiring or self.is_stopping or self.is_stalled

    def order(self, order: Order, *descriptors: int) -> bool:
        """Send an order; false if it is lost. A worker that reads none is found by its beats."""
        return self.channel.send(order, *descriptors)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, to no other process."""
        _send_signal(self.watched, number)

    def close(self) -> None:
        """Close what the supervisor holds of it."""
        self.channel.close()
        if self.watched != -1:
            os.close(self.watched)


def _send_signal(watched: int, number: signal.Signals) -> None:
    if watched != -1:
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(watched, number)
