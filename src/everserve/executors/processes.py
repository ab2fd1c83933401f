"""``processes:4``: worker processes that run calls, each of which may die without harm to the others.

A thread of the server waits for each process. Not a ``ProcessPoolExecutor``, which fails all its calls
and takes no further one when a worker dies; here one call is lost, and the next has another process.

Workers are spawned: they inherit no listener and no connection, so that a peer sees the end of its
connection when the server closes it, and no lock that a thread of the server held. ``forkserver``
would do that too, and starts faster; but it is one for the whole program, and a server that was
forked (``workers``) cannot use that of its parent.
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.util  # its exit waits for the workers; what is registered later comes first
import os
import pickle
import signal
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from multiprocessing.connection import Connection
from typing import Any, Final

from everserve.fibers.offloadpool import OffloadPool

__all__ = ["ProcessExecutor", "WorkerDied"]

PATIENCE: Final = 1.0  # seconds that a worker without work has to end; then it is killed


class WorkerDied(BrokenExecutor):
    """A worker process has ended in the middle. ``begun`` is false if it had not taken the call."""

    def __init__(self, text: str, *, begun: bool) -> None:
        super().__init__(text)
        self.begun = begun


class ProcessExecutor(Executor):
    """At most ``size`` processes, started when needed. What a call returns must be ``bytes``.

    A call whose process ends raises ``WorkerDied``. All methods may be called from any thread.
    """

    def __init__(self, size: int) -> None:
        self._threads = OffloadPool(size, name="everserve-process")
        self._changed = threading.Condition()
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._closed = False
        self._owner = os.getpid()
        _OPEN.add(self)

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the workers that there are."""
        with self._changed:
            return tuple(worker.pid for worker in (*self._idle, *self._busy))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a process call the function. Raises ``RuntimeError`` after ``shutdown``."""
        if self._closed:
            raise RuntimeError("the executor is closed")
        return self._threads.submit(self._call, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no further call, and end each worker when it has nothing to do; ``wait`` for that.

        ``cancel_futures``: drop the calls that no worker has begun.
        """
        self._threads.shutdown(wait=False, cancel_futures=cancel_futures)
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            for worker in idle:
                worker.let_end()
            while wait and self._busy:
                self._changed.wait()
        for worker in idle if wait else ():
            worker.join(PATIENCE)

    def kill(self) -> None:
        """Kill the workers: the calls in progress raise ``WorkerDied``."""
        with self._changed:
            workers = (*self._idle, *self._busy) if self._owner == os.getpid() else ()
        for worker in workers:
            worker.kill()

    def _call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> bytes:
        """Run a call in a process, in a thread that waits for it."""
        call = pickle.dumps((function, args, kwargs))
        worker = self._take()
        try:
            result = worker.call(call)
        except BaseException:
            self._drop(worker)
            raise
        self._give_back(worker)
        kind, value = pickle.loads(result)
        if not kind:
            raise value
        return bytes(value)

    def _take(self) -> _Worker:
        with self._changed:
            while self._idle:
                worker = self._idle.pop()
                if worker.is_alive():  # else it has been killed while it had nothing to do
                    self._busy.add(worker)
                    return worker
                worker.join(PATIENCE)
        worker = _Worker()
        with self._changed:
            self._busy.add(worker)
        return worker

    def _give_back(self, worker: _Worker) -> None:
        with self._changed:
            if not self._closed:
                self._busy.discard(worker)
                self._idle.append(worker)
                return
        worker.let_end()
        self._bury(worker)

    def _drop(self, worker: _Worker) -> None:
        worker.kill()
        self._bury(worker)

    def _bury(self, worker: _Worker) -> None:
        worker.join(PATIENCE)
        with self._changed:
            self._busy.discard(worker)
            self._changed.notify_all()


_OPEN: weakref.WeakSet[ProcessExecutor] = weakref.WeakSet()


@atexit.register
def _kill_all() -> None:
    """End what a program has not closed: its exit would wait for workers, and these for a call."""
    for executor in tuple(_OPEN):
        executor.kill()


class _Worker:
    """One process, and the pipe to it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), name="everserve-executor")
        self._ready = False
        try:
            self._process.start()
        except BaseException:
            self._pipe.close()
            raise
        finally:
            theirs.close()  # so that its end closes the pipe

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def call(self, call: bytes) -> bytes:
        """The packed result. Raises ``WorkerDied``."""
        begun = False
        try:
            if not self._ready:
                self._pipe.recv_bytes()
                self._ready = True
            self._pipe.send_bytes(call)
            begun = True
            return self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            self._process.join(PATIENCE)
            raise WorkerDied(self._explain(), begun=begun) from error

    def _explain(self) -> str:
        code = self._process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else "has ended"
        status = "" if code is None or code < 0 else f" with status {code}"
        when = "" if self._ready else " while it started"
        return f"the worker process {self.pid} {how}{status}{when}"

    def let_end(self) -> None:
        """Close the pipe: the process ends when it has nothing to do."""
        self._pipe.close()

    def kill(self) -> None:
        self._process.kill()

    def join(self, seconds: float) -> None:
        """Wait until it has ended; kill it if that takes longer."""
        self._process.join(seconds)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(seconds)


def _work(pipe: Connection) -> None:
    """The life of a worker: run calls until the server closes the pipe, or has ended."""
    for number in (signal.SIGINT, signal.SIGTERM):  # of a terminal, a service manager: the server's
        signal.signal(number, _go_on)
    try:
        pipe.send_bytes(b"")
        while True:
            pipe.send_bytes(_run(pipe.recv_bytes()))
    except (EOFError, OSError):
        return


def _go_on(number: int, frame: object) -> None:
    """Not ``SIG_IGN``, which programs that a handler starts would inherit."""


def _run(call: bytes) -> bytes:
    try:
        function, args, kwargs = pickle.loads(call)
        return pickle.dumps((True, function(*args, **kwargs)))
    except BaseException as error:
        return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
