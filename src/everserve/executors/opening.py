"""Makes the executor that a text asks for, and ends it."""

from __future__ import annotations

import concurrent.futures
from concurrent.futures import Executor

from everserve.executors import cluster
from everserve.executors.plan import ExecutorPlan
from everserve.fibers.offloadpool import OffloadPool

__all__ = ["close_executor", "is_usable", "open_executor"]


def open_executor(plan: ExecutorPlan) -> Executor:
    """The executor. Raises ``OptionError`` for a cluster that does not answer."""
    if plan.kind == "threads":
        # What still runs when the server has been closed has no connection any more.
        return OffloadPool(plan.size, name="everserve-executor", daemon=True)
    if plan.kind == "processes":
        # Imported when needed: multiprocessing takes 12 ms.
        from everserve.executors.processes import ProcessExecutor  # noqa: PLC0415

        return ProcessExecutor(plan.size)
    if plan.kind == "interpreters":
        made: Executor = concurrent.futures.InterpreterPoolExecutor(plan.size)  # type: ignore[attr-defined, unused-ignore]
        return made
    return cluster.connect(plan.address)


def is_usable(plan: ExecutorPlan, executor: Executor) -> bool:
    """False for an executor of ours that will take no further call: it is to be made anew."""
    if plan.kind == "dask":
        return not cluster.is_closed(executor)
    return not getattr(executor, "_broken", False)


def close_executor(executor: Executor, *, kill: bool) -> None:
    """End an executor of ours. ``kill``: no one waits for what it still runs."""
    if cluster.is_dask(executor):
        cluster.client_of(executor).close()
        return
    executor.shutdown(wait=False, cancel_futures=True)
    stop_now = getattr(executor, "kill", None)
    if kill and stop_now is not None:
        stop_now()
