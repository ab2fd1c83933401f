"""A bounded number of threads, which are reused."""

from __future__ import annotations

import os
import threading
from typing import Any, ClassVar

from everserve.concurrency.parking import ThreadParking
from everserve.concurrency.strategy import (
    MovableDeadline,
    RunningLoop,
    Strategy,
    StrategyParts,
)
from everserve.concurrency.workers import WorkerPool
from everserve.fibers import threadwaits
from everserve.lifecycle.connection import Connection
from everserve.settings import Settings

__all__ = ["PoolStrategy"]

_PARKED = object()
"""In place of an address: the task is a session that was parked."""


class PoolStrategy(Strategy):
    """Runs requests in at most ``max_workers`` threads.

    A place is reserved before a connection is accepted, so excess connections wait in the kernel's
    queue. An accept loop that does not check ``is_full`` waits for a place instead.
    """

    name: ClassVar[str] = "pool"
    is_bounded: ClassVar[bool] = True

    def __init__(self, parts: StrategyParts) -> None:
        super().__init__(parts)
        self._progress = parts.progress
        self._pool: WorkerPool | None = None
        self.parking: ThreadParking = ThreadParking(self._resume, self._is_short)
        self._process = 0
        self._made_for: Settings | None = None

    def start(self, hooks: Any, request: Any, client_address: Any) -> None:
        """Pass the request to a worker. Raises ``RuntimeError`` if the system has no thread at all."""
        pool, life = self._workers(), self._life
        if self._loop is None:  # another accept loop: it is not to miss its shutdown here
            life.notifier.wait_until(lambda: pool.has_room or life.shutdown_requested)
        pool.run(hooks.process_request_thread, request, client_address, wait=False)

    def is_full(self) -> bool:
        """True if no place is free."""
        return not self._workers().has_room

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

    def _resume(self, session: Any) -> None:
        """Pass a session to a worker; where the system has no thread at all, go on in this one."""
        try:
            if self._pool is not None:
                self._pool.run(_resume, session, _PARKED, wait=False)
        except RuntimeError:
            session.resume()

    def cut(self, hooks: Any, connections: tuple[Connection, ...]) -> None:
        """Shut the connections down, and close those that still wait for a worker."""
        super().cut(hooks, connections)
        if self._pool is not None:
            for request, address in self._pool.drop_waiting():
                if address is _PARKED:  # a session: it ends by itself
                    self._resume(request)
                    continue
                self._progress.refused(self._connections.find(request), "stopped")
                hooks.shutdown_request(request)

    def close(self, *, wait: bool, deadline: MovableDeadline = lambda: None) -> None:
        """Let the workers finish what they have begun; with ``wait``, wait until ``deadline()``.

        As in the standard library, nothing waits for threads that the program has made daemons itself.
        """
        pool, settings = self._pool, self._settings
        if pool is None:
            return
        self.parking.close()
        pool.close(wait=False)
        if wait and not (settings.read().daemon_threads and settings.is_set("daemon_threads")):
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


def _resume(session: Any, _mark: object) -> None:
    threadwaits.serve(session.request)
    session.resume()
