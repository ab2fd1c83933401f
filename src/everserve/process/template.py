"""A template: a process that has loaded the code of the workers, and forks them.

The supervisor forks one for each time that the code is read, so that it holds no code of handlers
itself, and so that what was read once is shared by all workers. It serves nothing.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeAlias

from everserve.errors import EverserveError
from everserve.escaping import describe
from everserve.process.channel import Channel, Closed
from everserve.process.orders import Born, Ended, Failed, Fork, Ready, Stop
from everserve.process.shares import limits_of, most_workers, set_shares
from everserve.process.worker import ENDING, Worker, reset_signals
from everserve.server.balance import Board
from everserve.server.group import ServerGroup
from everserve.sockets.wakeup import Wakeup

__all__ = ["Plan", "Prepare", "fork_template"]

Prepare: TypeAlias = Callable[[ServerGroup[Any]], ServerGroup[Any] | None]

logger = logging.getLogger("everserve")


@dataclass(frozen=True, slots=True)
class Plan:
    """What all workers have in common.

    ``prepare(group)`` loads their code, and gives the servers their handlers, or returns others over
    the same listeners. ``boards`` are for the balance, one for each server. ``interval``: seconds
    between two beats of a worker.
    """

    group: ServerGroup[Any]
    prepare: Prepare
    boards: Sequence[Board]
    grace: float
    interval: float


def fork_template(plan: Plan, close_others: Callable[[], object]) -> tuple[int, Channel]:
    """Start a template. Returns its process and the channel to it.

    ``close_others()`` closes, in the child, what belongs to the supervisor alone.
    """
    own, other = Channel.pair()
    pid = _fork()
    if pid:
        other.close()
        return pid, own
    status = 1
    try:
        own.close()
        close_others()
        _Template(plan, other).run()
        status = 0
    finally:
        _end(status)


class _Template:
    def __init__(self, plan: Plan, channel: Channel) -> None:
        self._plan = plan
        self._channel = channel
        self._wakeup = Wakeup()
        self._workers: set[int] = set()
        self._ends = False

    def run(self) -> None:
        """Load the code; fork at each order; end with the last worker after a ``Stop``."""
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        if self._load():
            with self._wakeup.woken_by_signals():
                self._serve_orders()

    def _serve_orders(self) -> None:
        for number in ENDING:  # they may be sent to all processes; an order ends this one
            signal.signal(number, signal.SIG_IGN)
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        poll.register(self._channel, select.POLLIN)
        while not self._ends or self._workers:
            poll.poll()
            self._wakeup.clear()
            self._collect()
            try:
                while (received := self._channel.receive()) is not None:
                    self._obey(*received)
            except Closed:
                return  # the workers see the death of the supervisor by themselves

    def _load(self) -> bool:
        try:
            group = self._plan.prepare(self._plan.group)
        except Exception as error:
            text = str(error) if isinstance(error, EverserveError) else describe(error)
            if not isinstance(error, EverserveError):
                logger.debug("the code cannot be loaded", exc_info=error)
            self._channel.send(Failed(text), wait=1.0)
            return False
        if group is not None:
            self._plan = replace(self._plan, group=group)
        gc.collect()
        gc.freeze()  # a collection in a worker writes to no page of what they share
        group = self._plan.group
        ready = Ready(group.moves_connections(), most_workers(group.servers))
        return self._channel.send(ready, wait=1.0)

    def _obey(self, order: Fork | Stop, descriptors: list[int]) -> None:
        if isinstance(order, Stop):
            self._ends = True
            self._plan.group.leave_listeners()
            return
        channel = Channel.of(descriptors[0])
        pid = _fork()
        if pid == 0:
            self._become_worker(order, channel)
        channel.close()
        self._workers.add(pid)
        watched = os.pidfd_open(pid)  # it is not collected yet: the number is still its own
        self._channel.send(Born(order.place, pid), watched, wait=1.0)
        os.close(watched)

    def _become_worker(self, order: Fork, channel: Channel) -> NoReturn:
        status = 1
        try:
            self._channel.close()
            group = self._plan.group
            limits = [limits_of(server) for server in group.servers]
            for server, whole in zip(group.servers, limits, strict=True):
                set_shares(server, whole, order.share)
            group.balance(self._plan.boards, order.place)
            for index in order.suspended:
                group.servers[index].suspend()
            worker = Worker(
                group,
                channel,
                grace=self._plan.grace,
                interval=self._plan.interval,
                limits=limits,
                forwards=order.forwards,
            )
            status = worker.run()
        except BaseException as error:
            logger.error("worker %d cannot start", os.getpid(), exc_info=error)
        finally:
            _end(status)

    def _collect(self) -> None:
        for pid in tuple(self._workers):
            ended, status = _status_of(pid)
            if ended:
                self._workers.discard(pid)
                self._channel.send(Ended(pid, status), wait=1.0)


def _status_of(pid: int) -> tuple[bool, int]:
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return True, 0
    return found != 0, status


def _fork() -> int:
    """Fork; in the child no signal runs a handler of the parent."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This process .* is multi-threaded")
            pid = os.fork()
        if pid == 0:
            reset_signals()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _end(status: int) -> NoReturn:
    """End a forked process; nothing of the program that it is a copy of is called."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    logging.shutdown()
    os._exit(status)
