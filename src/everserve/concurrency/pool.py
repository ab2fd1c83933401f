"""A bounded number of threads, which are reused."""

from __future__ import annotations

import os
import threading
from typing import Any, ClassVar

from everserve.concurrency.earlysteps import Candidate, EarlyThread
from everserve.concurrency.strategy import MovableDeadline, Strategy, StrategyParts
from everserve.concurrency.workers import WorkerPool
from everserve.fibers.log import logger
from everserve.lifecycle.connection import Connection
from everserve.settings import Settings
from everserve.sockets.genuine import is_patched

__all__ = ["PoolStrategy"]

MOST_EARLY = 1_000
"""How many connections may be in their first steps at once: as many handshakes as ``serve`` allows."""


class PoolStrategy(Strategy):
    """Runs requests in at most ``max_workers`` threads.

    A place is reserved before a connection is accepted, so excess connections wait in the kernel's
    queue. An accept loop that does not check ``is_full`` waits for a place instead.

    A connection that begins with a PROXY header or a TLS handshake gets its worker after these: one
    thread waits for them all.
    """

    name: ClassVar[str] = "pool"
    is_bounded: ClassVar[bool] = True

    def __init__(self, parts: StrategyParts) -> None:
        super().__init__(parts)
        self._progress = parts.progress
        self._pool: WorkerPool | None = None
        self._early = EarlyThread(self._start_after_steps)
        self._process = 0
        self._made_for: Settings | None = None

    def start(self, hooks: Any, request: Any, client_address: Any) -> None:
        """Pass the request to a worker. Raises ``RuntimeError`` if the system has no thread at all."""
        pool, life = self._workers(), self._life
        if self._loop is None:  # another accept loop: it is not to miss its shutdown here
            life.notifier.wait_until(lambda: pool.has_room or life.shutdown_requested)
        early = None if is_patched() else self.begin_early(hooks, request, client_address)
        if early is not None:
            context, steps = early
            if self._early.add(Candidate(request, context, steps, (hooks, client_address))):
                return
        pool.run(hooks.process_request_thread, request, client_address, wait=False)

    def _start_after_steps(self, candidate: Candidate) -> None:
        hooks, client_address = candidate.arguments
        request = candidate.request
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
        return not self._workers().has_room or len(self._early) >= MOST_EARLY

    def cut(self, hooks: Any, connections: tuple[Connection, ...]) -> None:
        """Shut the connections down, and close those that still wait for a worker."""
        super().cut(hooks, connections)
        for candidate in self._early.drop():
            self._give_up(candidate, "stopped")
        if self._pool is not None:
            for request, _ in self._pool.drop_waiting():
                self._progress.refused(self._connections.find(request), "stopped")
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
        pool.close(wait=False)
        if wait:
            own = threading.current_thread()
            others = [worker for worker in pool.workers if worker is not own]
            self.wait_until(lambda: not any(w in pool.workers for w in others), deadline)
            for worker in others:
                if worker not in pool.workers:
                    worker.join()

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
