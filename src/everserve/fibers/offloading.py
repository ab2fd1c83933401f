"""`offload`: run blocking code in a bounded pool of threads while the fiber is parked.

It stands beside the sockets, for what cannot use one: files, name resolution, database drivers.
"""

import contextvars
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final, TypeVar, TypeVarTuple

from everserve.fibers import engines
from everserve.fibers.offloadpool import OffloadPool

__all__ = ["OFFLOAD_THREADS", "offload"]

OFFLOAD_THREADS: Final = (
    32  # threads for each hub; further calls are queued, and their fibers parked
)

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


def offload(function: Callable[[*Arguments], T], /, *arguments: *Arguments) -> T:
    """Run `function(*arguments)` in a thread, park meanwhile, and return what it returns.

    Raises what it raises. If the fiber is killed meanwhile, the call goes on to its end, because a
    thread cannot be stopped. Outside of a fiber this is a plain call. `hub.pool` may be set to any
    `concurrent.futures.Executor` before the first call; the hub shuts it down when it closes. Raises
    `RuntimeError` if no thread of the pool runs and the system has none left.
    """
    fiber = engines.current()
    if fiber is None:
        return function(*arguments)
    run: Callable[..., T] = contextvars.copy_context().run
    future = _pool_of(fiber.hub).submit(run, function, *arguments)
    future.add_done_callback(lambda _done: fiber.wake())
    try:
        while not future.done():
            fiber.hub.park()
        return future.result()
    finally:
        future.cancel()
        del future  # its exception refers to this frame: break the cycle


def _pool_of(hub: Any) -> Executor:
    if hub.pool is None:
        hub.pool = OffloadPool(OFFLOAD_THREADS, name="everserve-offload")
    pool: Executor = hub.pool
    return pool
