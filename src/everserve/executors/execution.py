"""``Execution``: runs the messages of a server in its executor, again where a worker was lost.

The strategies open and close it; the conversations of message handlers call it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import Any, Final

from everserve.errors import LostWorkerError, OptionError
from everserve.events import WorkerLost
from everserve.executors import cluster
from everserve.executors.opening import close_executor, is_usable, open_executor
from everserve.executors.plan import ExecutorPlan, is_of_interpreters, is_out_of_process
from everserve.executors.remote import run_message, run_packed, unpack
from everserve.fibers.helperthreads import try_to_start

__all__ = ["MOST_RUNS", "Execution"]

MOST_RUNS: Final = 5  # of one message: one that itself kills its workers must come to an end


class Execution:
    """The executor of one server: the program's own, or that of a text, which it makes and ends.

    ``given`` is the value of the option. ``report(event)`` is called for each loss. ``once``: a message
    must not run twice. All methods may be called from any thread.
    """

    def __init__(self, given: Any, report: Callable[[WorkerLost], object], *, once: bool) -> None:
        self.given = given
        self.out_of_process = is_out_of_process(given)
        self._packs = self.out_of_process and not is_of_interpreters(given)
        self._plan = ExecutorPlan.parse(given) if isinstance(given, str) else None
        self._report = report
        self._once = once
        self._lock = threading.Lock()
        self._executor: Executor | None = None if self._plan is not None else given
        self._is_opening = False
        self._owner = os.getpid()
        self.closed = False

    @property
    def name(self) -> str:
        """How reports name it: the text, or the class of the program's executor."""
        return self.given if isinstance(self.given, str) else type(self.given).__name__

    @property
    def executor(self) -> Executor | None:
        """The executor, if it is open."""
        return self._executor

    def open(self) -> None:
        """Make the executor, if it is to be made. Raises ``OptionError`` where it cannot be had."""
        if self._plan is not None and self._executor is None:
            self._executor = open_executor(self._plan)
        if self._once and cluster.is_dask(self._executor):
            cluster.install_once(self._executor)

    def close(self, *, kill: bool) -> None:
        """End what ``open`` has made; the program's own executor stays as it is.

        ``kill``: also the processes that run a message.
        """
        with self._lock:
            self.closed = True
            executor, self._executor = self._executor, None
        if self._plan is not None and executor is not None and self._owner == os.getpid():
            close_executor(executor, kill=kill)

    def start(
        self, function: Callable[..., Any], *arguments: Any, idempotent: bool = False
    ) -> Future[Any]:
        """Run ``function(*arguments)``; in another process ``run_message(function, message)``.

        The future raises ``LostWorkerError`` for a call that a worker did not survive, or which none
        could take. ``idempotent``: it is run again then, up to ``MOST_RUNS`` times. It may be
        cancelled at any time, also where the executor cannot cancel what runs.
        """
        if cluster.is_dask(self._executor):
            function, arguments = run_packed, (cluster.pack(function), *arguments)
        elif self._packs:
            function, arguments = run_message, (function, *arguments)
        call = _Call(self, function, arguments, idempotent)
        call.run()
        return call.future

    def result(self, future: Future[Any]) -> Any:
        """What the function returned; an iterator for several replies. Raises what it raised."""
        found = future.result()
        return unpack(found) if self._packs else found

    # -- for the calls -------------------------------------------------------------------------

    def submit(self, executor: Executor | None, call: _Call) -> Future[Any]:
        """Have the executor run a call. Raises whatever it raises."""
        if executor is None:
            raise RuntimeError("the executor is closed" if self.closed else "it is not open yet")
        if self._plan is None and self._owner != os.getpid():
            raise RuntimeError("an executor object is of the process that made it: give a text")
        if cluster.is_dask(executor):
            future: Future[Any] = cluster.submit(
                executor, call.function, call.arguments, once=not call.idempotent
            )
            return future
        return executor.submit(call.function, *call.arguments)

    def is_loss(self, error: BaseException) -> bool:
        """True for an error of the executor, which out of process no ``handle_message`` raises."""
        return self.out_of_process and (
            isinstance(error, BrokenExecutor | CancelledError) or cluster.is_lost(error)
        )

    def is_over(self, error: BaseException) -> bool:
        """True if the program's own executor is broken: it takes nothing more.

        Not even a call that would fail: it reports this while it holds the lock of ``submit``.
        """
        return self._plan is None and type(error).__name__ == "BrokenProcessPool"

    def lost(self, executor: Executor | None, error: BaseException, *, again: bool) -> None:
        """Report the loss of a worker; make the executor anew where it is broken, and ours."""
        if self.closed:
            return
        self._report(WorkerLost(self.name, error, again))
        if self._plan is None or executor is None or is_usable(self._plan, executor):
            return
        with self._lock:
            if self._is_opening or self._executor is not executor:
                return
            self._is_opening = True
        if self._plan.kind != "dask":
            self._replace(executor, self._plan)
        elif try_to_start(partial(self._replace, executor, self._plan), name=self.name) is None:
            self._is_opening = False

    def _replace(self, broken: Executor, plan: ExecutorPlan) -> None:
        """Make it anew. A cluster is waited for: not on the thread of a loop."""
        try:
            unused = open_executor(plan)
            with self._lock:
                if not self.closed:
                    self._executor, unused = unused, broken
            close_executor(unused, kill=True)
        except OptionError as error:
            self._report(WorkerLost(self.name, error, False))
        finally:
            self._is_opening = False


class _Call:
    """One message on its way through the executor. ``future`` is what its conversation waits for."""

    def __init__(
        self, execution: Execution, function: Any, arguments: Any, idempotent: bool
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.idempotent = idempotent
        self.future: Future[Any] = Future()
        self._execution = execution
        self._runs = 0

    def run(self) -> None:
        """Have the executor run it."""
        execution = self._execution
        executor = execution.executor
        self._runs += 1
        try:
            inner = execution.submit(executor, self)
        except Exception as error:
            if isinstance(error, RuntimeError | OSError) or cluster.is_lost(error):
                self._go_elsewhere(executor, error)
            else:
                self._resolve(self.future.set_exception, error)
        else:
            inner.add_done_callback(partial(self._note, executor))
            self.future.add_done_callback(_cancel(inner))

    def _go_elsewhere(self, executor: Executor | None, error: Exception) -> None:
        """The executor has not taken it: run it in another, if it is made anew."""
        execution = self._execution
        execution.lost(executor, error, again=False)
        if execution.executor is executor or self._runs >= MOST_RUNS:
            self._fail(error)
        else:
            self.run()

    def _note(self, executor: Executor | None, inner: Future[Any]) -> None:
        """The executor is done with it."""
        error = CancelledError("it was dropped") if inner.cancelled() else inner.exception()
        if error is None:
            self._resolve(self.future.set_result, inner.result())
        elif self.future.cancelled():
            return
        elif not self._execution.is_loss(error):
            self._resolve(self.future.set_exception, error)
        else:
            may_run = self.idempotent or not getattr(error, "begun", True)
            error = cluster.plain(error)
            again = may_run and self._runs < MOST_RUNS and not self._execution.is_over(error)
            self._execution.lost(executor, error, again=again)
            if again:
                self.run()
            else:
                self._fail(error)

    def _fail(self, cause: BaseException) -> None:
        error = LostWorkerError(
            f"{self._execution.name}: no worker has finished a message: {cause}"
        )
        error.__cause__ = cause
        self._resolve(self.future.set_exception, error)

    def _resolve(self, how: Callable[[Any], object], value: Any) -> None:
        with suppress(InvalidStateError):  # cancelled meanwhile
            how(value)


def _cancel(inner: Future[Any]) -> Callable[[Future[Any]], object]:
    """Cancels ``inner`` with the future that it is called with."""
    return lambda outer: outer.cancelled() and inner.cancel()
