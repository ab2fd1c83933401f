"""A process for each request."""

from __future__ import annotations

import os
import select
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from time import monotonic, sleep
from typing import Any, ClassVar, NoReturn

from everserve.admission.control import duplicate_of
from everserve.concurrency.sharedmemory import Note, SharedOrders
from everserve.concurrency.strategy import (
    Condition,
    MovableDeadline,
    Order,
    RunningLoop,
    StopTimes,
    Strategy,
    StrategyParts,
)
from everserve.events import Opened, ServerEvent
from everserve.lifecycle.connection import Connection
from everserve.lifecycle.outcome import Outcome
from everserve.sockets.listening import forks

__all__ = ["ForkStrategy"]

_TERM_TIME = 0.25
"""Seconds between SIGTERM and SIGKILL for a child that a stop cuts."""

_HAS_PIDFD = hasattr(os, "pidfd_open")


class ForkStrategy(Strategy):
    """Runs each request in a child process, at most ``max_children`` at a time.

    A child has a copy of the server. ``stop``, ``shutdown`` and ``draining`` on it reach the parent;
    other changes do not. The strategy waits only for children that it started.

    Only the parent emits events; the child reports to it. In a child, a subscriber that takes a lock
    could wait forever: the child has a copy of the lock, but not the thread that holds it.
    """

    name: ClassVar[str] = "forks"
    handles_batches: ClassVar[bool] = False
    runs_at_once: ClassVar[bool] = False
    attends: ClassVar[bool] = True
    is_bounded: ClassVar[bool] = True
    is_here: ClassVar[bool] = False

    def __init__(self, parts: StrategyParts) -> None:
        super().__init__(parts)
        self._control = parts.control
        self._emitter = parts.emitter
        self._progress = parts.progress
        self.children: set[int] | None = None
        self._descriptors: dict[int, int] = {}
        self._notes: dict[int, tuple[Note, Connection | None]] = {}
        self._unopened: set[int] = set()  # children whose handler has not reported its start
        self._orders: SharedOrders | None = None
        self._watched: dict[int, Callable[[], object]] = {}
        self._last_signal: signal.Signals | None = None  # that a stop sent to all children
        self._is_child = False
        self._note: Note | None = None  # in a child: its own

    def room(self, most: int) -> int:
        """One at a time: to fork costs much more than to receive."""
        return 1

    # -- on the accept loop --------------------------------------------------------------------

    def start(self, hooks: Any, request: Any, client_address: Any) -> None:
        """Fork a child for the request; the parent closes its own copy."""
        if self.children is None:
            self.children = set()
        self._orders = self._orders or SharedOrders()
        if self._loop is None:
            self._wait_for_place()
        if self._counts_clients():  # as the child is to know how many connections a client has
            for pid in tuple(self._unopened):
                self._read_progress(pid)
        _flush_output()
        note = Note()
        try:
            pid = _fork()
        except BaseException:
            note.close()
            raise
        if pid == 0:
            self._run_child(hooks, request, client_address, note)
        forks.forget_last()
        self.children.add(pid)
        self._keep_track(pid, request, note)
        hooks.close_request(request)
        if self._last_signal is not None:
            _signal(pid, self._last_signal)  # a stop has cut the other children meanwhile

    def _run_child(self, hooks: Any, request: Any, client_address: Any, note: Note) -> NoReturn:
        status = 1
        try:
            self._become_child(note)
            self.finish(hooks, request, client_address)
            status = 0
        except Exception as error:
            self._progress.failed(self._connections.find(request), request, error)
            hooks.handle_error(request, client_address)
        finally:
            try:
                hooks.shutdown_request(request)
                _flush_output()
            finally:
                os._exit(status)

    def _become_child(self, note: Note) -> None:
        """Report to the parent, and leave it the listeners, so that it can close them."""
        self.become_child()
        if self._loop is not None:
            self._loop.leave_to_parent()
        for _, other in self._notes.values():
            _drop_duplicate(other)  # of another child: it would keep that connection open
        self._note = note
        listened = bool(self._emitter.subscribers)

        def report(event: ServerEvent) -> None:
            note.take_down(event)
            if isinstance(event, Opened) and (listened or self._counts_clients()):
                self._life.wake()

        self._emitter.subscribers = (report,)
        self._progress.on_handshake_done = self._report_handshake

    def _counts_clients(self) -> bool:
        """True if the clients behind a proxy are counted: the children learn who they are."""
        settings = self._settings.values
        return settings.header_first and not (
            settings.max_connections_per_peer is None and settings.accept_rate_per_peer is None
        )

    def become_child(self) -> None:
        """Relay what is asked for, also by a child of another server in the same loop."""
        self._is_child = True

    def _report_handshake(self) -> None:
        note = self._note
        if note is not None and not note.handshaken:
            note.handshaken = True
            if self._settings.values.max_handshakes is not None:
                self._life.wake()

    def _keep_track(self, pid: int, request: Any, note: Note) -> None:
        connection = self._connections.find(request)
        settings = self._settings.values
        if connection is not None and (
            settings.overload == "shed-idle" or settings.handshakes_first
        ):
            connection.duplicate = duplicate_of(request)  # for the deadlines and for cuts
        self._notes[pid] = note, connection
        self._unopened.add(pid)
        self._connections.hold(request, pid)
        if _HAS_PIDFD:
            with suppress(OSError):  # no descriptor left: collected at the next poll_interval
                descriptor = os.pidfd_open(pid)
                self._descriptors[pid] = descriptor
                self._watched[descriptor] = lambda: self._collect(pid, os.WNOHANG)
                if self._loop is not None:
                    self._loop.watch(descriptor)

    def attach(self, loop: RunningLoop) -> None:
        """Share the orders before a child of any server in the loop is forked."""
        super().attach(loop)
        self._orders = self._orders or SharedOrders()

    def watched(self) -> Mapping[int, Callable[[], object]]:
        """The process descriptors of the children: one is readable when its process has ended."""
        return self._watched

    def attend(self) -> None:
        """Collect the children that have ended, and report the progress of the others."""
        self.collect()
        for pid in tuple(self._unopened):
            self._read_progress(pid)

    def needs_attention(self) -> bool:
        """True while there are children: they are checked at intervals."""
        return bool(self.children)

    def is_full(self) -> bool:
        """True at ``max_children``."""
        return len(self.children or ()) >= self._settings.values.max_children

    def _wait_for_place(self) -> None:
        while self.is_full():
            _wait_for_any(self.children or (), None)
            self.collect()

    def _read_progress(self, pid: int) -> None:
        """Report the start of the request, as the child has noted it."""
        note, connection = self._notes.get(pid, (None, None))
        if note is None or connection is None:
            self._unopened.discard(pid)
            return
        try:
            handshaken, opened, peer = note.handshaken, note.opened, note.peer(connection.peer)
        except ValueError:
            return  # closed: a stop, in its own thread, has collected the child
        if handshaken and connection.in_handshake:
            self._control.handshake_done(connection)
            if self._settings.values.overload != "shed-idle":
                _drop_duplicate(connection)
        if opened:
            with suppress(KeyError):  # only one of two threads reports it
                self._unopened.remove(pid)
                if self._counts_clients():
                    self._control.count_client(self._settings.values, connection, peer)
                self._progress.opened_elsewhere(connection, peer)

    def collect(self, *, blocking: bool = False) -> None:
        """Collect the children that have ended; if ``blocking``, wait for all and collect them."""
        for pid in tuple(self.children or ()):
            self._collect(pid, 0 if blocking else os.WNOHANG)

    def _collect(self, pid: int, flags: int) -> None:
        status = None
        try:
            ended, status = os.waitpid(pid, flags)
        except ChildProcessError:
            ended = pid  # another part of the program has called waitpid(2) for it
        if not ended or self.children is None:
            return
        self.children.discard(pid)
        self._unwatch(pid)
        if pid in self._unopened:
            self._read_progress(pid)
        note, connection = self._notes.pop(pid, (None, None))  # one step, as above
        if note is not None:
            if connection is not None:
                connection.peer = note.peer(connection.peer)
            self._report_end(pid, note.read() or _outcome_of(status))
            note.close()

    def _unwatch(self, pid: int) -> None:
        descriptor = self._descriptors.pop(pid, None)
        if descriptor is not None:
            self._watched.pop(descriptor, None)
            if self._loop is not None:
                self._loop.unwatch(descriptor)
            os.close(descriptor)

    def _report_end(self, pid: int, outcome: Outcome) -> None:
        connection = self._connections.release(pid)
        if connection is not None:
            self._progress.ended_elsewhere(connection, outcome)
            self._progress.ended(connection)

    # -- the stop ------------------------------------------------------------------------------

    def relay(self, grace: float | None) -> bool:
        """In a child: write the order for the parent, and wake it."""
        if not self._is_child or self._orders is None:
            return False
        if grace is not None:
            self._orders.draining = True
        self._orders.ask(grace)
        self._life.wake()
        return True

    def take_order(self) -> Order | None:
        """The order of a child, if there is one."""
        return None if self._orders is None else self._orders.take()

    def is_draining(self) -> bool:
        """True once the parent, or a child, has begun a stop."""
        return self._orders is not None and self._orders.draining

    def stopping(self, stop: StopTimes) -> None:
        """Show the children that the server drains."""
        if self._orders is not None:
            self._orders.draining = True

    def wait_for_requests(self, quiet: Condition, deadline: MovableDeadline) -> bool:
        """Wait. Collect the children here once no accept loop does."""
        # While the loop runs, it collects the children, and only it may use the wake-up.
        life = self._life
        if not self.wait_until(lambda: not life.serving_elsewhere() or quiet(), deadline):
            return False
        while self.children and not quiet():
            end = deadline()
            if end is not None and monotonic() >= end:
                return False
            _wait_for_any(self.children, end, life.wakeup().fileno())
            life.wakeup().clear()
            self.collect()
        return super().wait_for_requests(quiet, deadline)

    def cut(self, hooks: Any, connections: tuple[Connection, ...]) -> None:
        """Shut down the connections; end the children with SIGTERM, and soon after with SIGKILL."""
        super().cut(hooks, connections)
        end = monotonic() + _TERM_TIME
        self._signal_children(signal.SIGTERM)
        while self.children and monotonic() < end:
            _wait_for_any(self.children, end)
            self.collect()
        self._signal_children(signal.SIGKILL)

    def close(self, *, wait: bool, deadline: MovableDeadline = lambda: None) -> None:
        """Collect the children; with ``wait``, wait for those that run until ``deadline()``."""
        if self._is_child:
            return
        while wait and self.children and (end := deadline()) is not None and monotonic() < end:
            _wait_for_any(self.children, end)
            self.collect()
        self.collect(blocking=wait and deadline() is None)

    def abandon(self) -> None:
        """Close what belongs to the children that run: they go on without the server."""
        super().abandon()
        self._watched.clear()
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()
        for note, connection in self._notes.values():
            note.close()
            _drop_duplicate(connection)
        self._notes.clear()

    def _signal_children(self, number: signal.Signals) -> None:
        self._last_signal = number  # set first, for a child that is being started
        for pid in tuple(self.children or ()):
            _signal(pid, number)


def _fork() -> int:
    """Fork without the warning about other threads (Python 3.12 and later).

    Where warnings are errors, Python 3.15 raises it in the parent when the child already runs: no one
    would know that child.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        return os.fork()


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _outcome_of(status: int | None) -> Outcome:
    """The outcome of a child without a note, from its exit status; ``None`` if that is unknown."""
    code = 0 if status is None else os.waitstatus_to_exitcode(status)
    if code == 0:
        return Outcome()
    how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    return Outcome(failed=True, error=f"the process of the request {how}")


def _wait_for_any(pids: Iterable[int], deadline: float | None, *also: int) -> None:
    """Wait until one of those processes has ended, or ``also`` is readable, or for a while."""
    if not _HAS_PIDFD:
        sleep(0.01)  # this system cannot wait for one of several processes
        return
    poll = select.poll()
    with ExitStack() as stack:
        for pid in tuple(pids):
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                return  # it has ended and was collected elsewhere
            except OSError:
                sleep(0.01)  # no descriptor left to wait with
                return
            stack.callback(os.close, descriptor)
            poll.register(descriptor, select.POLLIN)
        for descriptor in also:
            poll.register(descriptor, select.POLLIN)
        poll.poll(None if deadline is None else max(0.0, deadline - monotonic()) * 1000)


def _flush_output() -> None:
    """Write buffered output once: before the fork, and in the child at its end."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()


def _drop_duplicate(connection: Connection | None) -> None:
    if connection is not None and connection.duplicate is not None:
        connection.duplicate.close()
        connection.duplicate = None
