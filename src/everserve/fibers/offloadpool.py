"""The threads of `offload`: a bounded number, started when needed.

Not a `ThreadPoolExecutor`, which takes no call once the main thread has ended, while a server that runs
in another thread goes on; and which runs a call later whose thread could not be started.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final, ParamSpec, TypeVar

from everserve.fibers.helperthreads import try_to_start

__all__ = ["OffloadPool"]

IDLE_TIME: Final = 0.5  # seconds that a thread waits for a further call; an exit may wait as long

P = ParamSpec("P")
T = TypeVar("T")
Task = tuple["Future[Any]", Callable[[], Any]]


class OffloadPool(Executor):
    """At most `size` threads; further calls wait. The process ends after the calls that run.

    `daemon`: it does not wait for them.
    """

    def __init__(self, size: int, *, name: str, daemon: bool = False) -> None:
        self._size = size
        self._name = name
        self._daemon = daemon
        self._changed = threading.Condition(threading.Lock())
        self._tasks: deque[Task] = deque()
        self._threads = 0
        self._idle = 0
        self._closed = False

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Have a thread call the function. Raises `RuntimeError` if no thread can be had.

        Where Python starts none any more, it is called here, and holds the loop.
        """
        future: Future[T] = Future()
        task: Task = (future, lambda: function(*args, **kwargs))
        if not self._threads and not _may_start():
            _run(*task)
            return future
        with self._changed:
            if self._closed:
                raise RuntimeError("the hub is closed: it offloads no further calls")
            self._tasks.append(task)
            if self._idle >= len(self._tasks):
                self._changed.notify()
            elif self._threads < self._size and not self._grow() and not self._threads:
                self._tasks.remove(task)
                raise RuntimeError("offload: the system has no thread left")
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no further calls, and let the threads end after those that wait.

        `cancel_futures`: after those that run. It never waits, as its hub closes in any case.
        """
        with self._changed:
            self._closed = True
            cancelled = tuple(self._tasks) if cancel_futures else ()
            if cancel_futures:
                self._tasks.clear()
            self._changed.notify_all()
        for future, _call in cancelled:
            future.cancel()

    def _grow(self) -> bool:
        self._threads += 1
        if try_to_start(self._work, name=self._name, daemon=self._daemon) is None:
            self._threads -= 1
            return False
        return True

    def _work(self) -> None:
        while (task := self._next()) is not None:
            _run(*task)
            del task  # a thread that waits must keep nothing alive

    def _next(self) -> Task | None:
        """Wait for a call; None when the thread is to end."""
        with self._changed:
            while not self._tasks:
                self._idle += 1
                waited = not self._closed and self._changed.wait(IDLE_TIME)
                self._idle -= 1
                if not waited and not self._tasks:
                    self._threads -= 1
                    return None
            return self._tasks.popleft()


def _may_start() -> bool:
    """False in Python 3.12 once the main thread has ended: it starts no thread from then on."""
    return sys.version_info[:2] != (3, 12) or threading.main_thread().is_alive()


def _run(future: "Future[Any]", call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
        del future  # its exception refers to this frame: break the cycle
    else:
        future.set_result(result)
