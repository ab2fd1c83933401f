"""`offload`: blocking code in a bounded pool of threads while the fiber is parked.

It stands beside the sockets: what has no FiberSocket (files, name resolution, databases) waits here.
"""

import contextvars
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from everserve.fibers import engine

__all__ = ["OFFLOAD_THREADS", "offload"]

OFFLOAD_THREADS: Final = 32  # threads a hub; further calls wait in line, their fibers parked

T = TypeVar("T")


def offload(function: Callable[..., T], /, *arguments: Any) -> T:
    """Run `function(*arguments)` in a thread, park meanwhile, and return what it returns.

    Raises what it raises. A fiber that is killed meanwhile leaves the call to end by itself, for a
    thread cannot be stopped. Outside of a fiber it is a plain call. `hub.pool` may be set to any
    `concurrent.futures.Executor` before the first call; the hub shuts it down when it closes.
    """
    fiber = engine.current()
    if fiber is None:
        return function(*arguments)
    future = _pool_of(fiber.hub).submit(contextvars.copy_context().run, function, *arguments)
    future.add_done_callback(lambda _done: fiber.wake())
    try:
        while not future.done():
            fiber.hub.park()
        return future.result()
    finally:
        future.cancel()
        del future  # its error holds this frame, which would hold it


def _pool_of(hub: Any) -> Executor:
    if hub.pool is None:
        hub.pool = ThreadPoolExecutor(OFFLOAD_THREADS, thread_name_prefix="everserve-offload")
    pool: Executor = hub.pool
    return pool
