"""A worker: one of the processes that serve, over listeners that they share.

A template forks it. It serves as a process of its own would, by ``run``; beside that a thread takes the
supervisor's orders, and tells it that the accept loop turns, what happens, and how the stop went.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import logging
import mmap
import os
import select
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

from everserve.errors import RemoteError
from everserve.escaping import describe
from everserve.events import Draining, Failed, Refused, ServerEvent, Serving, Stopped
from everserve.lifecycle.connection import plain
from everserve.process.channel import Channel, Closed
from everserve.process.logfiles import reopen_log_files
from everserve.process.moving import Mover, Reception, Way
from everserve.process.orders import (
    Accepting,
    Adopt,
    Ask,
    Beat,
    Forward,
    Happened,
    Move,
    Order,
    Reopen,
    Reported,
    Share,
    Stop,
    Suspend,
    Told,
)
from everserve.process.run import run
from everserve.process.shares import Limits, set_shares
from everserve.process.signals import known
from everserve.server.group import ServerGroup
from everserve.server.stop import StopReport

__all__ = ["ENDING", "IGNORED", "ORPHAN_GRACE", "Worker", "reset_signals"]

ORPHAN_GRACE = 0.4
"""Seconds that requests have after the death of the supervisor; the process ends within a second."""

_ORPHAN_END = 0.95

_MOVING = 0.9
"""The part of the grace in which connections move; what is left then has the rest of it to end."""

_DECISION = 1.0
"""Seconds for which a stop waits for connections that are on their way here: milliseconds, mostly."""

ENDING = known("SIGTERM", "SIGQUIT")
"""Signals at which a worker stops."""

IGNORED = known("SIGINT", "SIGHUP", "SIGTTIN", "SIGTTOU")
"""Signals that a terminal sends to all processes: the supervisor alone acts on them."""

_PAGE = mmap.PAGESIZE

logger = logging.getLogger("everserve")


def reset_signals() -> None:
    """In a forked child: forget how the supervisor receives signals; dump the stacks at SIGUSR2."""
    signal.set_wakeup_fd(-1)
    for number in (*ENDING, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    # By the C library's own means: a thread that holds the interpreter is dumped too.
    faulthandler.register(signal.SIGUSR2, file=_standard_error(), all_threads=True)


def _standard_error() -> Any:
    try:
        sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # none, or a program's own object
        return 2
    return sys.stderr


class Worker:
    """The servers of this process, and its end of the channel.

    ``interval``: seconds between two beats. ``limits``: those of the whole server, for each server.
    """

    def __init__(
        self,
        group: ServerGroup[Any],
        channel: Channel,
        *,
        grace: float,
        interval: float,
        limits: Sequence[Limits],
        forwards: bool,
    ) -> None:
        self._group = group
        self._channel = channel
        self._grace = grace
        self._interval = interval
        self._limits = limits
        self._lock = threading.Lock()  # of the channel: any thread may emit an event
        self._lost = 0
        self._is_asked = False  # the supervisor, or a signal, has asked for the stop
        self._has_reported = False
        self._forwards = False
        self._ways: list[Way] = []  # to the workers that go on with the connections of this one
        self._mover: Mover | None = None
        self._receptions: list[Reception] = []
        if forwards:
            self._forward()

    def run(self) -> int:
        """Serve until an order, or a signal. Returns the exit status of the process."""
        try:
            report = run(
                self._group,
                grace=self._grace,
                on_ready=self._accepts,
                on_signal=self._obey_signal,
                stop_signals=ENDING,
                further_signals=(signal.SIGUSR1,),
            )
        except BaseException as error:
            logger.error("worker %d ended by an error", os.getpid(), exc_info=error)
            self._report(StopReport(complete=False), describe(error))
            return 1
        if self._mover is not None:
            self._mover.finish()
        self._report(report)
        return 0 if report.complete and not report.unfinished else 1

    # -- in the main thread ----------------------------------------------------------------------

    def _accepts(self) -> None:
        """All servers accept. Orders are obeyed from now on: a stop before this would end nothing."""
        self._send(Accepting())
        threading.Thread(target=self._listen, name="everserve-worker", daemon=True).start()

    def _obey_signal(self, number: signal.Signals) -> None:
        if number is signal.SIGUSR1:
            reopen_log_files()
            return
        self._is_asked = True
        if number is signal.SIGQUIT:
            self._stop(0.0)

    def _report(self, report: StopReport, error: str | None = None) -> None:
        self._has_reported = True
        self._send(
            Reported(report, self._group.reports(), self._refusals(), self._is_asked, error),
            wait=1.0,
        )

    # -- in the thread of the channel ------------------------------------------------------------

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        due = monotonic() + self._interval
        while True:
            ready = poll.poll(max(0.0, due - monotonic()) * 1000)
            if not ready:
                due = monotonic() + self._interval
                self._beat()
                continue
            try:
                while (received := self._channel.receive()) is not None:
                    self._obey(*received)
            except Closed:
                self._end_alone()
                return

    def _beat(self) -> None:
        if self._group.is_turning():
            self._send(Beat(self._group.accepted(), _memory(), self._refusals()))

    def _obey(self, order: Order, descriptors: list[int]) -> None:
        match order:
            case Move(load):
                self._add(Way(Channel.of(descriptors[0]), load))
            case Adopt():
                self._receptions = [one for one in self._receptions if not one.is_over]
                self._receptions.append(Reception(self._group, Channel.of(descriptors[0])))
            case Stop(grace):
                self._is_asked = True
                self._stop(grace)
            case Share():
                for server, limits in zip(self._group.servers, self._limits, strict=True):
                    set_shares(server, limits, order)
            case Suspend(index, suspended):
                server = self._group.servers[index]
                server.suspend() if suspended else server.resume()
            case Reopen():
                reopen_log_files()
            case Forward():
                self._forward()
            case Ask(number):
                self._tell(number)

    def _add(self, way: Way) -> None:
        if self._mover is None:
            self._ways.append(way)
        else:
            self._mover.add(way)

    def _tell(self, number: int) -> None:
        connections = tuple(tuple(server.connections) for server in self._group.servers)
        self._send(Told(number, connections, self._refusals()))

    def _refusals(self) -> tuple[dict[str, int], ...]:
        return tuple(server.refusals for server in self._group.servers)

    def _end_alone(self) -> None:
        """The supervisor is dead: end within a second, as gracefully as that allows."""
        if self._has_reported:
            return
        self._is_asked = True
        logger.error("worker %d ends, as its supervisor has ended", os.getpid())
        self._stop(min(self._grace, ORPHAN_GRACE))
        threading.Event().wait(_ORPHAN_END)
        os._exit(1)

    def _stop(self, grace: float) -> None:
        """Begin a stop, in a thread that waits for it: it may be the second one, which hurries."""
        end = monotonic() + min(grace, _DECISION)
        for reception in self._receptions:
            reception.refuse(max(0.0, end - monotonic()))
        seconds = _MOVING * grace
        if self._mover is not None:
            self._mover.hurry(seconds)
        elif self._ways and seconds:
            self._mover = Mover(self._group, self._ways, seconds)
        threading.Thread(target=self._group.stop, args=(grace,), daemon=True).start()

    # -- events ----------------------------------------------------------------------------------

    def _forward(self) -> None:
        if self._forwards:
            return
        self._forwards = True
        for index, server in enumerate(self._group.servers):
            server.subscribe(partial(self._pass_on, index))

    def _pass_on(self, index: int, event: ServerEvent) -> None:
        """Send an event to the supervisor, which emits those of the whole server itself."""
        if isinstance(event, Serving | Draining | Stopped):
            return
        if isinstance(event, Failed | Refused):
            event = dataclasses.replace(event, error=_remote(event.error))
        event = _with_plain_peer(event)
        object.__setattr__(event, "worker", os.getpid())
        with self._lock:
            sent = self._channel.send(Happened(index, event, self._lost))
            self._lost = 0 if sent else self._lost + 1

    def _send(self, message: Any, wait: float = 0.0) -> None:
        with self._lock:
            self._channel.send(message, wait=wait)


def _with_plain_peer(event: Any) -> ServerEvent:
    """The event, a copy for the supervisor: other subscribers have the one that happened."""
    changes = {"peer": plain(event.peer)} if hasattr(event, "peer") else {}
    copy: ServerEvent = dataclasses.replace(event, **changes)
    return copy


def _remote(error: Any) -> Any:
    """An error as it can be sent: its class may be known here alone."""
    is_plain = error is None or isinstance(error, RemoteError)
    return error if is_plain else RemoteError(describe(error))


def _memory() -> int:
    """Bytes of memory that this process has in use (proc(5), statm); 0 if that is not known."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * _PAGE
    return 0
