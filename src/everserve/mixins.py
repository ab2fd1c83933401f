"""The mix-ins: each overrides documented hooks, and names the strategy that runs the requests.

They work on the servers of the standard library too: ``class S(FiberMixIn, http.server.HTTPServer)``.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from everserve.concurrency.fibers import FiberStrategy
from everserve.concurrency.forks import ForkStrategy
from everserve.concurrency.pool import PoolStrategy
from everserve.concurrency.threads import ThreadStrategy
from everserve.reading import InstanceReading, Reading
from everserve.server.hooks import default_hook
from everserve.server.runtime import RuntimeSlot
from everserve.server.served import Served

__all__ = ["FiberMixIn", "ThreadPoolMixIn", "ThreadingMixIn"]


class _StrategyMixIn(Served):
    """The hooks that all mix-ins override.

    ``block_on_close`` (default ``True``): ``server_close`` waits for the requests in progress.
    """

    block_on_close: bool = True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Have the strategy run the request."""
        self._everserve.strategy.start(self, request, client_address)

    def server_close(self) -> None:
        """Close the server, then wait for the requests in progress."""
        self._everserve.conductor.close()
        super().server_close()  # type: ignore[misc]  # the next base is a server
        self._everserve.conductor.close_strategy()


class _ThreadHookMixIn(_StrategyMixIn):
    """The hook ``process_request_thread``."""

    @default_hook
    def process_request_thread(self: Any, request: Any, client_address: Any) -> None:
        """Run in the thread, or fiber: ``finish_request``, ``shutdown_request``.

        ``handle_error`` where either raised.
        """
        self._everserve.flow.run(self, request, client_address)


class ThreadingMixIn(_ThreadHookMixIn):
    """Handle each request in a new thread, without bound.

    ``daemon_threads`` (default ``False``): the interpreter may exit while threads run.
    ``block_on_close`` (default ``True``): ``server_close`` waits for the non-daemon threads.
    If the system has no thread left, the request is closed.
    """

    _everserve = RuntimeSlot(ThreadStrategy)
    daemon_threads: bool = False

    @Reading
    def _threads(self) -> list[threading.Thread]:
        """The threads that run. The standard library has this name."""
        strategy = self._everserve.strategy
        return list(strategy.running) if isinstance(strategy, ThreadStrategy) else []


class ThreadPoolMixIn(_ThreadHookMixIn):
    """Handle requests in at most ``max_workers`` threads, which are reused.

    The pool reserves a place before it accepts a connection, so excess connections wait in the
    kernel's queue. Class attributes:

    - ``max_workers`` (threads, default 64): started when needed
    - ``max_connections`` (default ``None``: as many as workers): above ``max_workers``, accepted
      connections wait here for a worker
    - ``worker_idle_timeout`` (seconds, default 10): a worker without work ends after that
    - ``daemon_threads`` (default ``True``): a worker does not keep the interpreter alive; where a
      program sets it to true itself, ``server_close`` does not wait for the requests in progress
    - ``block_on_close`` (default ``True``): ``server_close`` waits for the requests in progress
    """

    _everserve = RuntimeSlot(PoolStrategy)
    max_workers: int = 64
    max_connections: int | None = None
    worker_idle_timeout: float = 10.0
    daemon_threads: bool = True


class FiberMixIn(_ThreadHookMixIn):
    """Handle each request in a fiber: the same blocking ``handle()``, a hundred thousand at a time.

    A wait on ``self.request``, ``rfile`` or ``wfile`` lets the other fibers run, and so does a wait in
    ``everserve.fibers`` (``sleep``, ``Event``, ``Queue``, ...). Any other blocking call blocks all
    fibers: pass it to ``everserve.fibers.offload``. Class attributes:

    - ``stall_threshold`` (seconds, default 0.1; ``None``: never): the event ``Stalled`` reports a
      handler that holds the loop for longer, with its stack, once a minute for one place in the code
    - ``coalesce_writes`` (default ``True``): all that a handler writes to ``wfile`` is sent together
      when it next waits
    - ``shutdown_grace`` (seconds, default 5): the fibers run on the thread of ``serve_forever``; after
      ``shutdown()`` it runs those in progress for this time, then cuts them
    - ``block_on_close`` (default ``True``): ``server_close`` waits for the fibers to end;
      ``daemon_threads`` (default ``False``): if true, nothing waits for them
    """

    _everserve = RuntimeSlot(FiberStrategy)
    stall_threshold: float | None = 0.1
    shutdown_grace: float = 5.0
    coalesce_writes: bool = True
    daemon_threads: bool = False


if hasattr(os, "fork"):

    class ForkingMixIn(_StrategyMixIn):
        """Handle each request in a new process.

        ``max_children`` (default 40): further requests wait. ``timeout`` (seconds, default 300): as in
        ``BaseServer``; ``handle_timeout`` collects children. ``block_on_close`` (default ``True``):
        ``server_close`` waits for the children. ``active_children``: their process ids.

        A child has a copy of the server. ``stop``, ``shutdown`` and ``draining`` on it reach the
        parent; other changes do not. The server waits only for children that it started.

        Only the parent emits events; the child reports to it. ``Failed`` has a ``RemoteError`` in
        place of the exception.
        """

        _everserve = RuntimeSlot(ForkStrategy)
        timeout: float | None = 300
        max_children: int = 40

        @InstanceReading
        def active_children(self) -> set[int] | None:
            """The process ids of the children that run; ``None`` before the first."""
            strategy = self._everserve.strategy
            return strategy.children if isinstance(strategy, ForkStrategy) else None

        def collect_children(self, *, blocking: bool = False) -> None:
            """Collect the children that have ended; if ``blocking``, wait for all and collect them."""
            strategy = self._everserve.strategy
            if isinstance(strategy, ForkStrategy):
                strategy.collect(blocking=blocking)

        @default_hook
        def service_actions(self) -> None:
            """Collect the children that have ended."""
            self.collect_children()

        def handle_timeout(self) -> None:
            """Collect the children that have ended."""
            self.collect_children()

    __all__ += ["ForkingMixIn"]
