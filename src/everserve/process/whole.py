"""The whole server, as its workers together have it.

In the supervisor ``server.connections``, ``refusals``, ``stop()`` and ``subscribe()`` come here. What
the workers know is asked of them; what happens there is sent while someone listens.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any, Protocol

from everserve.events import Draining, ServerEvent, Serving, Stopped, Subscriber
from everserve.lifecycle.connection import Connection
from everserve.lifecycle.stages import Connections
from everserve.lifecycle.state import ServerState
from everserve.process.orders import Ask, Forward, Happened, Reported, Told
from everserve.process.processes import WorkerProcess
from everserve.server.group import ServerGroup
from everserve.server.naming import name_of
from everserve.server.stop import StopReport, sum_of

__all__ = ["Whole"]

_PATIENCE = 1.0
"""Seconds that the workers have to answer: one that stalls does not keep the others' answers."""

logger = logging.getLogger("everserve")


class Workers(Protocol):
    """The supervisor, as this module sees it."""

    has_served: bool

    def workers(self) -> Sequence[WorkerProcess]: ...
    def call(self, function: Callable[[], object]) -> None: ...
    def turn(self, end: float | None = None) -> None: ...
    def is_here(self) -> bool: ...
    def stop(self, grace: float) -> StopReport: ...
    def suspend(self, index: int, suspended: bool) -> None: ...
    @property
    def is_stopping(self) -> bool: ...
    @property
    def has_ended(self) -> bool: ...


class _Question:
    """What was asked of all workers, and the answers so far."""

    def __init__(self) -> None:
        self.places: set[int] = set()
        self.answers: list[Told] = []
        self.done = threading.Event()

    def forget(self, place: int) -> None:
        self.places.discard(place)
        if not self.places:
            self.done.set()


class Whole:
    """All servers of a group. ``servers`` are what each of them asks."""

    def __init__(self, supervisor: Workers, servers: int) -> None:
        self._supervisor = supervisor
        self.servers = [_WholeServer(self, supervisor, index) for index in range(servers)]
        self._questions: dict[int, _Question] = {}
        self._numbers = itertools.count(1)
        self._past: list[Counter[str]] = [Counter() for _ in range(servers)]
        self.forwards = False

    # -- questions ---------------------------------------------------------------------------------

    def ask(self) -> list[Told]:
        """The answers of all workers that give one in time. From any thread."""
        question = _Question()
        pose = partial(self._pose, question)
        if not self._supervisor.is_here():
            if not self._supervisor.has_ended:
                self._supervisor.call(pose)
                question.done.wait(_PATIENCE)
            return list(question.answers)
        pose()
        end = monotonic() + _PATIENCE
        while not question.done.is_set() and monotonic() < end:
            self._supervisor.turn(end)
        return list(question.answers)

    def _pose(self, question: _Question) -> None:
        number = next(self._numbers)
        workers = [worker for worker in self._supervisor.workers() if worker.is_accepting]
        question.places = {worker.place for worker in workers}
        self._questions = {n: q for n, q in self._questions.items() if not q.done.is_set()}
        self._questions[number] = question
        for worker in workers:
            worker.order(Ask(number))
        if not workers:
            question.done.set()

    def note_answer(self, worker: WorkerProcess, told: Told) -> None:
        """A worker has answered."""
        worker.refusals = told.refusals
        question = self._questions.get(told.number)
        if question is not None:
            question.answers.append(told)
            question.forget(worker.place)

    def note_end(self, worker: WorkerProcess) -> None:
        """A worker has ended: it answers no more; what it has refused counts on."""
        for counts, refusals in zip(self._past, worker.refusals, strict=False):
            counts.update(refusals)
        for question in self._questions.values():
            question.forget(worker.place)

    def refusals(self, index: int) -> dict[str, int]:
        """How many requests of a server were refused so far, by reason."""
        self.ask()
        total = Counter(self._past[index])
        for worker in self._supervisor.workers():
            if worker.refusals:
                total.update(worker.refusals[index])
        return dict(total)

    def connections(self, index: int) -> Connections[Connection]:
        """The requests in progress of a server."""
        found = [c for told in self.ask() for c in told.connections[index]]
        return Connections(dict[int, Connection](enumerate(found)))

    def suspended(self) -> tuple[int, ...]:
        """The servers that accept nothing for now."""
        return tuple(index for index, one in enumerate(self.servers) if one.is_suspended)

    # -- events ------------------------------------------------------------------------------------

    def forward(self) -> None:
        """Have the workers send their events, from now on."""
        if not self.forwards:
            self.forwards = True
            self._supervisor.call(self._forward)

    def _forward(self) -> None:
        for worker in self._supervisor.workers():
            worker.order(Forward())

    def emit(self, happened: Happened) -> None:
        """Pass an event of a worker on."""
        if happened.lost:
            logger.warning("%d events of workers were lost: a subscriber is slow", happened.lost)
        self.servers[happened.index].emit(happened.event)

    def serving(self, group: ServerGroup[Any]) -> None:
        """All workers accept."""
        for one, server in zip(self.servers, group.servers, strict=True):
            one.name = name_of(server)
            one.emit(Serving(server.server_address))

    def draining(self, grace: float) -> None:
        """A stop has begun."""
        for one in self.servers:
            one.emit(Draining(grace))

    def stopped(self, reports: Sequence[Reported | None], whole: StopReport) -> None:
        """All workers have ended."""
        for index, one in enumerate(self.servers):
            own = [r.reports[index] for r in reports if r is not None]
            known = [report for report in own if report is not None]
            one.emit(Stopped(sum_of(known) if len(known) == len(reports) else whole))


class _WholeServer:
    """One server. ``Served`` asks it; see ``Elsewhere``."""

    def __init__(self, whole: Whole, supervisor: Workers, index: int) -> None:
        self._whole = whole
        self._supervisor = supervisor
        self._index = index
        self._subscribers: tuple[Subscriber, ...] = ()
        self.is_suspended = False
        self.name = ""

    def state(self) -> ServerState:
        supervisor = self._supervisor
        if supervisor.has_ended:
            return ServerState.STOPPED
        if supervisor.is_stopping:
            return ServerState.DRAINING
        if not supervisor.has_served:
            return ServerState.READY
        return ServerState.SUSPENDED if self.is_suspended else ServerState.SERVING

    def connections(self) -> Connections[Connection]:
        return self._whole.connections(self._index)

    def refusals(self) -> dict[str, int]:
        return self._whole.refusals(self._index)

    def suspend(self, suspended: bool) -> None:
        self.is_suspended = suspended
        self._supervisor.suspend(self._index, suspended)

    def stop(self, grace: float) -> StopReport:
        return self._supervisor.stop(grace)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        self._subscribers = (*self._subscribers, subscriber)
        self._whole.forward()

        def unsubscribe() -> None:
            self._subscribers = tuple(one for one in self._subscribers if one is not subscriber)

        return unsubscribe

    def emit(self, event: ServerEvent) -> None:
        """Pass ``event`` to the subscribers. An error of one is logged and goes no further."""
        object.__setattr__(event, "server", self.name)
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:
                logger.exception("subscriber %r failed at %s", subscriber, event)
