"""A bounded number of threads, which are reused."""

from __future__ import annotations

import os
import threading
from contextvars import Context
from functools import partial
from typing import Any, ClassVar

from everserve.concurrency.earlysteps import Candidate, EarlyThread
from everserve.concurrency.parking import ThreadParking
from everserve.concurrency.strategy import (
    MovableDeadline,
    RunningLoop,
    Strategy,
    StrategyParts,
)
from everserve.concurrency.turns import Turns
from everserve.concurrency.workers import WorkerPool
from everserve.fibers import threadwaits
from everserve.fibers.log import logger
from everserve.lifecycle.connection import Connection
from everserve.settings import Settings
from everserve.sockets.datagrams import is_datagram
from everserve.sockets.genuine import is_patched

__all__ = ["PoolStrategy"]

MOST_EARLY = 1_000
"""How many connections may be in their first steps at once: as many handshakes as ``serve`` allows."""

_PARKED = object()
"""In place of an address: the task is a conversation that was parked."""


class PoolStrategy(Strategy):
    """Runs requests in at most ``max_workers`` threads.

    A place is reserved before a connection is accepted, so excess connections wait in the kernel's
    queue. An accept loop that does not check ``is_full`` waits for a place instead. The datagrams of
    one peer run in order, one after the other, unless ``ordered_peers`` is false.

    A connection that begins with a PROXY header or a TLS handshake gets its worker after these: one
    thread waits for them all, and ends those that are refused.
    """

    name: ClassVar[str] = "pool"
    handles_batches: ClassVar[bool] = False
    runs_at_once: ClassVar[bool] = False
    takes_executor: ClassVar[bool] = True
    is_bounded: ClassVar[bool] = True

    def __init__(self, parts: StrategyParts) -> None:
        super().__init__(parts)
        self._progress = parts.progress
        self._pool: WorkerPool | None = None
        self._turns = Turns()
        self._early = EarlyThread(self._start_after_steps)
        self.parking: ThreadParking = ThreadParking(self._resume, self._is_short)
        self._process = 0
        self._made_for: Settings | None = None

    def start(self, hooks: Any, request: Any, client_address: Any) -> None:
        """Pass the request to a worker. Raises ``RuntimeError`` if the system has no thread at all."""
        pool, life = self._workers(), self._life
        if self._loop is None:  # another accept loop: it is not to miss its shutdown here
            life.notifier.wait_until(lambda: pool.has_room or life.shutdown_requested)
        if is_datagram(request):
            self._start_datagram(pool, hooks, request, client_address)
            return
        early = None if is_patched() else self.begin_early(hooks, request, client_address)
        if early is not None:
            context, steps = early
            if self._early.add(Candidate(request, context, steps, (hooks, client_address))):
                return
        pool.run(hooks.process_request_thread, request, client_address, wait=False)

    def _start_datagram(
        self, pool: WorkerPool, hooks: Any, request: Any, client_address: Any
    ) -> None:
        """Pass a datagram to a worker, or behind that of the same peer which one has."""
        if not self._is_ordered(client_address):
            pool.run(hooks.process_request_thread, request, client_address, wait=False)
        elif not self._turns.wait(request, client_address):
            run = partial(self._run_in_order, hooks)
            try:
                pool.run(run, request, client_address, wait=False)
            except BaseException:
                self._turns.next(client_address)
                raise

    def _is_ordered(self, client_address: Any) -> bool:
        """True where the address distinguishes peers: it is not that of a proxy, and there is one."""
        settings = self._settings.values
        return settings.ordered_peers and bool(client_address) and not settings.proxy_protocol

    def _run_in_order(self, hooks: Any, request: Any, client_address: Any) -> None:
        """Run a datagram, then those of the same peer that have come meanwhile."""
        try:
            hooks.process_request_thread(request, client_address)
            while (request := self._turns.next(client_address)) is not None:
                Context().run(hooks.process_request_thread, request, client_address)
        except BaseException:  # it ends this worker, and no one else's request
            request = self._turns.next(client_address)
            if request is not None:
                run = partial(self._run_in_order, hooks)
                self._workers().run(run, request, client_address, wait=False)
            raise

    def _start_after_steps(self, candidate: Candidate) -> None:
        hooks, client_address = candidate.arguments
        request = candidate.request
        if self.end_refused(hooks, request, candidate.context):
            self._notify_room()
            return
        try:
            self._workers().run(hooks.process_request_thread, request, client_address, wait=False)
        except RuntimeError as error:
            logger.error("no thread for the request from %r: %s", client_address, error)
            self._give_up(candidate, "error", error)
        self._notify_room()

    def _give_up(
        self, candidate: Candidate, reason: str, error: BaseException | None = None
    ) -> None:
        candidate.context.leave()
        self._progress.refused(self._connections.find(candidate.request), reason, error)
        candidate.arguments[0].shutdown_request(candidate.request)

    def is_full(self) -> bool:
        """True if no place is free, or if too many connections are in their first steps."""
        return self._workers().places <= self._turns.waiting or len(self._early) >= MOST_EARLY

    @property
    def handshakes_hold_places(self) -> bool:  # type: ignore[override]
        """Not those of workers; but not too many may be in their first steps."""
        return len(self._early) >= MOST_EARLY

    def room(self, most: int) -> int:
        """As many as there are places."""
        return max(1, min(most, self._workers().places - self._turns.waiting))

    def shed_oldest(self, hooks: Any) -> bool:
        """Drop the oldest datagram that waits, of the peer that has the most; false if none waits."""
        request = self._turns.drop_oldest()
        if request is None and self._pool is not None:
            dropped = self._pool.drop_oldest()
            request = None if dropped is None else dropped[0]
            if dropped is not None:
                self._turns.forget(dropped[1])
        if request is None:
            return False
        self._drop(hooks, request, "max_connections")
        return True

    def attach(self, loop: RunningLoop) -> None:
        """Note the loop; a run begins with connections that may be parked."""
        super().attach(loop)
        if self.parking.closed:
            self.parking = ThreadParking(self._resume, self._is_short)
        self.parking.draining = False

    def drain(self) -> None:
        """Have the connections that wait between messages end."""
        super().drain()
        self.parking.drain()

    def _is_short(self) -> bool:
        return self._pool is None or self._pool.is_short

    def _resume(self, conversation: Any) -> None:
        """Pass a conversation to a worker; where the system has no thread at all, go on in this one."""
        try:
            if self._pool is not None:
                self._pool.run(_resume, conversation, _PARKED, wait=False)
        except RuntimeError:
            conversation.resume()

    def cut(self, hooks: Any, connections: tuple[Connection, ...]) -> None:
        """Shut the connections down, and close those that still wait for a worker."""
        super().cut(hooks, connections)
        for request in self._turns.drop_all():
            self._drop(hooks, request, "stopped")
        for candidate in self._early.drop():
            self._give_up(candidate, "stopped")
        if self._pool is not None:
            for request, address in self._pool.drop_waiting():
                if address is _PARKED:  # a conversation: it ends by itself
                    self._resume(request)
                    continue
                self._turns.forget(address)
                self._drop(hooks, request, "stopped")

    def _drop(self, hooks: Any, request: Any, reason: str) -> None:
        self._progress.refused(self._connections.find(request), reason)
        hooks.shutdown_request(request)

    def close(self, *, wait: bool, deadline: MovableDeadline = lambda: None) -> None:
        """Let the workers finish what they have begun; with ``wait``, wait until ``deadline()``.

        As in the standard library, nothing waits for threads that the program has made daemons itself.
        """
        pool, settings = self._pool, self._settings
        if pool is None:
            return
        wait = wait and not (settings.read().daemon_threads and settings.is_set("daemon_threads"))
        if wait:  # what is in its first steps is to have a worker
            self.wait_until(lambda: not self._early, deadline)
        self._early.close()
        self.parking.close()
        pool.close(wait=False)
        if wait:
            own = threading.current_thread()
            others = [worker for worker in pool.workers if worker is not own]
            self.wait_until(lambda: not any(w in pool.workers for w in others), deadline)
            for worker in others:
                if worker not in pool.workers:
                    worker.join()

    def abandon(self) -> None:
        """End the workers, and the threads that wait for connections: there is none any more."""
        super().abandon()
        early, parking, pool = self._early, self.parking, self._pool
        self._early, self.parking = EarlyThread(_nothing), ThreadParking(_nothing)
        self._pool = None
        if pool is not None and self._process == os.getpid():  # threads do not fork
            early.close(wait=False)
            parking.close()
            pool.close(wait=False)

    def threads(self) -> tuple[threading.Thread, ...]:
        """The workers."""
        return () if self._pool is None else self._pool.workers

    def _notify_room(self) -> None:
        self._life.wake()
        self._life.notifier.notify()

    def _workers(self) -> WorkerPool:
        """The pool, with the current settings; another one in a forked child: threads do not fork."""
        settings, pool = self._settings.values, self._pool
        is_own = self._process == os.getpid()
        if pool is not None and settings is self._made_for and is_own and not pool.closed:
            return pool
        self._made_for = settings
        size = settings.max_workers
        limit = size if settings.max_connections is None else settings.max_connections
        if pool is None or pool.closed or not is_own:
            if self._process != os.getpid():
                self._early = EarlyThread(self._start_after_steps)
            self._process = os.getpid()
            self._pool = pool = WorkerPool(
                size,
                on_end=self._life.notifier.notify,
                limit=limit,
                idle_timeout=settings.worker_idle_timeout,
                daemon=settings.daemon_threads,
                on_room=self._notify_room,
            )
        elif pool.size != size or pool.limit != limit:
            pool.resize(size, limit)
        return pool


def _nothing(argument: object) -> None:
    """No connection waits any more."""


def _resume(conversation: Any, _mark: object) -> None:
    threadwaits.serve(conversation.request)
    conversation.resume()
