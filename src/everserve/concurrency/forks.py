"""``ForkingMixIn``: a process for each request."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, NoReturn

from everserve.admission.outcome import Outcome
from everserve.concurrency.sharedword import Note, SharedWord
from everserve.events import Opened
from everserve.reading import option

if TYPE_CHECKING:
    import socket

    from everserve.server.base import BaseServer as _Base
    from everserve.server.connection import Connection
    from everserve.server.stopping import StopReport
    from everserve.sockets.counted import CountedSocket
else:
    _Base = object

__all__ = ["ForkingMixIn"]

_LAST_WORDS = 0.25
"""Seconds between SIGTERM and SIGKILL for a child that a stop cuts."""


class ForkingMixIn(_Base):
    """Handle each request in a new process.

    ``max_children`` (default 40): more requests wait. ``timeout`` (seconds, default 300): as in
    ``BaseServer``; ``handle_timeout`` collects children. ``block_on_close`` (default ``True``):
    ``server_close`` waits for the children. ``active_children``: their process ids.

    A child has a copy of the server: of that, ``stop``, ``shutdown`` and ``draining`` reach the
    parent, other changes do not. Only children that were started here are waited for.

    Events are told in the parent alone, which hears of them from the child: a subscriber that takes a
    lock could wait for ever in a child, which has a copy of the lock but not of the thread that holds
    it. ``Failed`` has a ``RemoteError`` in the place of the exception.
    """

    timeout: float | None = 300
    max_children: int = 40
    block_on_close: bool = True
    active_children: set[int] | None = None
    _descriptors: dict[int, int]
    _notes: dict[int, tuple[Note, Connection | None]]
    _unopened: set[int]  # of those, whose handler is not known to have begun
    _word: SharedWord | None = None
    _own_note: Note | None = None  # in a child
    _parent_listens: bool = False  # in a child: the parent has subscribers
    _is_child: bool = False
    _last_signal: signal.Signals | None = None  # that all children got when a stop cut them

    # -- on the accept loop --------------------------------------------------------------------

    def process_request(self, request: Any, client_address: Any) -> None:
        """Fork a child for the request; the parent closes its copy of it."""
        if self.active_children is None:
            self.active_children = set()
            self._descriptors = {}
            self._notes = {}
            self._unopened = set()
            self._word = SharedWord()
        _flush_output()
        note = Note()
        try:
            pid = os.fork()
        except BaseException:
            note.close()
            raise
        if pid == 0:
            self._is_child = True
            self._own_note = note
            self._run_child(request, client_address)
        self.active_children.add(pid)
        self._keep_track(pid, request, note)
        self.close_request(request)
        if self._last_signal is not None and self._stopping is not None:
            self._signal(pid, self._last_signal)  # a stop has cut its siblings meanwhile

    def _run_child(self, request: Any, client_address: Any) -> NoReturn:
        status = 1
        try:
            if _is_ours(self):
                self._stop_listening()  # the parent alone is to hold it, so that it can close it
                self._leave_events_to_parent()
            self.finish_request(request, client_address)
            status = 0
        except Exception:
            self.handle_error(request, client_address)
        finally:
            try:
                self.shutdown_request(request)
                _flush_output()
            finally:
                os._exit(status)

    def _leave_events_to_parent(self) -> None:
        """What happens is noted, for the parent to tell it."""
        assert self._own_note is not None
        self._parent_listens = bool(self._subscribers)
        self._subscribers = (self._own_note.take_down,)

    def _greeted(self, connection: Connection | None) -> None:
        super()._greeted(connection)
        if self._own_note is not None and not self._own_note.greeted:
            self._own_note.greeted = True
            if option(self.max_handshakes) is not None:
                self._life.wake()

    def _open(self, connection: Connection | None, client_address: Any) -> None:
        super()._open(connection, client_address)
        if self._own_note is not None and self._parent_listens:
            self._life.wake()

    def _count(self, sock: socket.socket) -> CountedSocket:
        return super()._count(sock) if self._own_note is None else self._own_note.count(sock)

    def _keep_track(self, pid: int, request: Any, note: Note) -> None:
        """Let our own servers see the child; the standard library's have no such hooks."""
        if not _is_ours(self):
            note.close()
            return
        connection = self._connection_of(request)
        self._notes[pid] = note, connection
        self._unopened.add(pid)
        self._request_moved(request, pid)
        if connection is not None and connection.twin is not None and not connection.traffic():
            connection.counter = note
        if hasattr(os, "pidfd_open"):
            with suppress(OSError):  # none left: the next poll_interval collects it
                descriptor = os.pidfd_open(pid)
                self._descriptors[pid] = descriptor
                self._watch(descriptor, lambda: self._collect(pid, os.WNOHANG))

    def service_actions(self) -> None:
        """Collect the children that have ended, and do what a child asked for."""
        super().service_actions()
        self._attend()

    def _attend(self) -> None:
        self.collect_children()
        self._obey()
        if _is_ours(self) and self.active_children:
            for pid in tuple(self._unopened):
                self._read_progress(pid)

    def _read_progress(self, pid: int) -> None:
        """Tell what the child has noted of the beginning of its request."""
        note, connection = self._notes.get(pid, (None, None))
        if note is None or connection is None:
            self._unopened.discard(pid)
            return
        try:
            greeted, opened, peer = note.greeted, note.opened, note.peer(connection.peer)
        except ValueError:
            return  # closed: a stop has collected the child in its thread meanwhile
        if greeted:
            self._door.greeted(connection)
        if opened:
            connection.peer = peer
            with suppress(KeyError):  # one of the two tells it
                self._unopened.remove(pid)
                self._emit(Opened(connection.id, connection.peer))

    def _needs_service(self) -> bool:
        """Children are looked for every ``poll_interval``, while there are any."""
        return bool(self.active_children) or super()._needs_service()

    def _is_full(self) -> bool:
        """True at ``max_children``."""
        return len(self.active_children or ()) >= self.max_children or super()._is_full()

    def handle_timeout(self) -> None:
        """Collect the children that have ended."""
        self.collect_children()

    def collect_children(self, *, blocking: bool = False) -> None:
        """Take note of the children that have ended; of all, waiting for them, if ``blocking``."""
        if not (_is_ours(self) and hasattr(os, "pidfd_open")):  # has_room() cannot hold it back
            while len(self.active_children or ()) >= self.max_children:
                _wait_for_any(self.active_children or (), None)
                self._collect_ended()
        for pid in tuple(self.active_children or ()):
            self._collect(pid, 0 if blocking else os.WNOHANG)

    def _collect_ended(self) -> None:
        for pid in tuple(self.active_children or ()):
            self._collect(pid, os.WNOHANG)

    def _collect(self, pid: int, flags: int) -> None:
        status = None
        try:
            ended, status = os.waitpid(pid, flags)
        except ChildProcessError:
            ended = pid  # somebody else has waited for it
        if not ended or self.active_children is None:
            return
        self.active_children.discard(pid)
        descriptor = self._descriptors.pop(pid, None)
        if descriptor is not None:
            self._unwatch(descriptor)
            os.close(descriptor)
        if pid in getattr(self, "_unopened", ()):
            self._read_progress(pid)
        note, connection = self._notes.pop(pid, (None, None))  # one step, as above
        if note is not None:
            if connection is not None:
                connection.peer = note.peer(connection.peer)
            self._request_returned(pid, note.read() or _outcome_of(status))
            note.close()

    # -- the life cycle ------------------------------------------------------------------------

    def server_close(self) -> None:
        """Close the server, then wait for the children."""
        super().server_close()
        if not self._is_child:
            self.collect_children(blocking=self.block_on_close)

    def _is_draining(self) -> bool:
        return super()._is_draining() or (self._word is not None and self._word.draining)

    def shutdown(self) -> None:
        """As in ``BaseServer``; from a child it reaches the parent, and returns at once."""
        if self._is_child and self._word is not None and _is_ours(self):
            self._word.ask(None)
            self._life.wake()
        else:
            super().shutdown()

    def _stop(self, grace: float) -> StopReport:
        """From a child it reaches the parent, and returns at once."""
        if self._word is not None:
            self._word.draining = True
            if self._is_child:
                self._word.ask(grace)
                self._life.wake()
                return self._report_of_others()
        return super()._stop(grace)

    def _obey(self) -> None:
        request = self._word.take() if self._word is not None else None
        if request is not None:
            if request.grace is None:
                self.shutdown()
            else:
                self._stop(request.grace)

    def _await_requests(
        self, quiet: Callable[[], bool], deadline: Callable[[], float | None]
    ) -> bool:
        # While the accept loop runs it collects the children, and the wake-up is its own.
        life = self._life
        if not life.bell.wait_until(lambda: not life.serving_elsewhere() or quiet(), deadline):
            return False
        while self.active_children and not quiet():
            end = deadline()
            if end is not None and monotonic() >= end:
                return False
            _wait_for_any(self.active_children, end, life.wakeup().fileno())
            life.wakeup().clear()
            self._collect_ended()
        return super()._await_requests(quiet, deadline)

    def _cut_requests(self, connections: tuple[Connection, ...]) -> None:
        super()._cut_requests(connections)
        end = monotonic() + _LAST_WORDS
        self._signal_children(signal.SIGTERM)
        while self.active_children and monotonic() < end:
            _wait_for_any(self.active_children, end)
            self._collect_ended()
        self._signal_children(signal.SIGKILL)

    def _signal_children(self, number: signal.Signals) -> None:
        self._last_signal = number  # first, for one that is being started
        for pid in tuple(self.active_children or ()):
            self._signal(pid, number)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _outcome_of(status: int | None) -> Outcome:
    """Of a child that ended without a word: what waitpid(2) says, ``None`` where nobody could ask."""
    code = 0 if status is None else os.waitstatus_to_exitcode(status)
    if code == 0:
        return Outcome()
    how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    return Outcome(failed=True, error=f"the process of the request {how}")


def _is_ours(server: Any) -> bool:
    return hasattr(server, "_request_moved")


def _wait_for_any(pids: Iterable[int], deadline: float | None, *also: int) -> None:
    """Wait until one of those processes has ended, or ``also`` is readable, or for a while."""
    if not hasattr(os, "pidfd_open"):
        sleep(0.01)  # no way to wait for one of several on this system
        return
    poll = select.poll()
    with ExitStack() as stack:
        for pid in tuple(pids):
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                return  # ended, and collected by somebody else
            except OSError:
                sleep(0.01)  # no descriptor left to wait with
                return
            stack.callback(os.close, descriptor)
            poll.register(descriptor, select.POLLIN)
        for descriptor in also:
            poll.register(descriptor, select.POLLIN)
        poll.poll(None if deadline is None else max(0.0, deadline - monotonic()) * 1000)


def _flush_output() -> None:
    """What is buffered is to be written once: before the fork, and by the child at its end."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
