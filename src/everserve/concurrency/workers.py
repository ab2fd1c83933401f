"""A bounded number of reused threads, and a bounded number of tasks at a time.

The strategy of pools runs requests in it; a task may be any call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import Context
from queue import Empty, SimpleQueue
from typing import Any

from everserve.fibers.log import logger

__all__ = ["WorkerPool"]


Task = tuple[Callable[..., None], tuple[Any, ...]]


class WorkerPool:
    """Threads that run tasks: started when needed, kept for a while, replaced when one fails.

    At most ``size`` threads, and at most ``limit`` tasks at a time, running or waiting (default:
    ``size``); ``resize`` changes both. ``on_room()`` is called when a place becomes free after there
    was none, ``on_end()`` when a thread ends. All methods may be called from any thread.
    """

    def __init__(
        self,
        size: int,
        *,
        limit: int | None = None,
        idle_timeout: float = 10.0,
        daemon: bool = True,
        on_room: Callable[[], None] = lambda: None,
        on_end: Callable[[], None] = lambda: None,
        name: str = "worker",
    ) -> None:
        self.size = size
        self.limit = size if limit is None else limit
        self._idle_timeout = idle_timeout
        self._daemon = daemon
        self._on_room = on_room
        self._on_end = on_end
        self._name = name
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._changed = threading.Condition(threading.RLock())
        self._workers: set[threading.Thread] = set()
        self._busy = 0
        self._number = 0
        self.closed = False

    @property
    def has_room(self) -> bool:
        """True if another task would be accepted at once."""
        return self._busy < self.limit

    @property
    def places(self) -> int:
        """How many more tasks would be accepted at once."""
        return max(0, self.limit - self._busy)

    @property
    def is_short(self) -> bool:
        """True if a task waits for a thread."""
        return self._busy > self.size

    def __len__(self) -> int:
        """The number of threads."""
        return len(self._workers)

    @property
    def workers(self) -> tuple[threading.Thread, ...]:
        """The threads, those that wait for a task included."""
        with self._changed:
            return tuple(self._workers)

    def run(self, function: Callable[..., None], *args: Any, wait: bool = True) -> None:
        """Let a worker call ``function(*args)``.

        ``wait`` (default): wait for a place if there is none, instead of exceeding the limit. Raises
        ``RuntimeError`` if the system has no thread left and there is no worker.
        """
        with self._changed:
            while wait and not self.has_room:
                self._changed.wait()
            self._busy += 1
            self._tasks.put((function, args))
            try:
                self._grow()
            except RuntimeError:
                if not self._workers:
                    self._tasks.get_nowait()
                    self._busy -= 1
                    raise
                logger.warning("no thread left, going on with %d workers", len(self._workers))

    def resize(self, size: int, limit: int) -> None:
        """Change ``size`` and ``limit``. A worker above the new size ends after its task."""
        with self._changed:
            self.size, self.limit = size, limit
            for _ in range(len(self._workers) - size):
                self._tasks.put(None)  # wakes waiting workers; the others check after their task
            try:
                while self._needs_worker():
                    self._start_worker()
            except RuntimeError:
                logger.warning("no thread left, going on with %d workers", len(self._workers))
            self._changed.notify_all()

    def drop_waiting(self) -> list[tuple[Any, ...]]:
        """Remove the tasks that no worker has begun. Returns their arguments."""
        dropped = []
        ends = 0
        with self._changed:
            try:
                while True:
                    task = self._tasks.get_nowait()
                    if task is None:
                        ends += 1
                    else:
                        dropped.append(task[1])
            except Empty:
                pass
            for _ in range(ends):  # put back the items with which close() ends workers
                self._tasks.put(None)
        for _ in dropped:
            self._give_place()
        return dropped

    def drop_oldest(self) -> tuple[Any, ...] | None:
        """Remove the task that has waited longest. Returns its arguments; ``None`` if none waits."""
        with self._changed:
            try:
                task = self._tasks.get_nowait()
            except Empty:
                return None
            if task is None:  # it ends a worker
                self._tasks.put(None)
                return None
        self._give_place()
        return task[1]

    def close(self, *, wait: bool) -> None:
        """Let the workers end when no task is left; with ``wait``, wait for that."""
        with self._changed:
            self.closed = True
            for _ in self._workers:
                self._tasks.put(None)
            workers = tuple(self._workers)
        if wait:
            for worker in workers:
                if worker is not threading.current_thread():
                    worker.join()

    def _grow(self) -> None:
        """Start a worker if there are more tasks than workers, and not too many already."""
        if self._needs_worker():
            self._start_worker()

    def _needs_worker(self) -> bool:
        return self._busy > len(self._workers) < self.size

    def _start_worker(self) -> None:
        self._number += 1
        worker = threading.Thread(
            target=self._work, name=f"{self._name}-{self._number}", daemon=self._daemon
        )
        self._workers.add(worker)
        try:
            worker.start()
        except BaseException:
            self._workers.discard(worker)
            raise

    def _work(self) -> None:
        try:
            while not self._is_surplus() and (task := self._next_task()) is not None:
                function, args = task
                del task
                try:
                    Context().run(function, *args)  # as a new thread begins: with an empty one
                finally:
                    del function, args  # a waiting worker must keep no request or server alive
                    self._give_place()
        finally:
            self._retire()

    def _is_surplus(self) -> bool:
        """True for as many callers as there are surplus workers: these must end."""
        if len(self._workers) <= self.size:
            return False
        with self._changed:
            surplus = len(self._workers) > self.size
            if surplus:
                self._workers.discard(threading.current_thread())
            return surplus

    def _next_task(self) -> Task | None:
        try:
            return self._tasks.get(timeout=self._idle_timeout)
        except Empty:
            return None

    def _give_place(self) -> None:
        with self._changed:
            was_full = not self.has_room
            self._busy -= 1
            self._changed.notify()
        if was_full:
            self._on_room()

    def _retire(self) -> None:
        """Remove a worker that ends. If it failed while tasks wait, start another one."""
        with self._changed:
            self._workers.discard(threading.current_thread())
            self._grow()
        self._on_end()
