"""The mix-ins: each overrides documented hooks, and names the strategy that runs the requests.

They work on the servers of the standard library too: ``class S(FiberMixIn, http.server.HTTPServer)``.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Executor
from errno import EAGAIN
from typing import Any

from everserve.admission.control import Overload
from everserve.concurrency.aio import AsyncStrategy
from everserve.concurrency.fibers import FiberStrategy
from everserve.concurrency.forks import ForkStrategy
from everserve.concurrency.pool import PoolStrategy
from everserve.concurrency.threads import ThreadStrategy
from everserve.errors import OptionError
from everserve.lifecycle.session import Session
from everserve.reading import InstanceReading, Reading, attribute_of
from everserve.server.hooks import default_hook
from everserve.server.runtime import RuntimeSlot
from everserve.server.served import Served
from everserve.server.stop import StopReport
from everserve.settings import LoopFactory, brings_defaults

__all__ = [
    "AsyncMixIn",
    "DatagramSessionMixIn",
    "FiberMixIn",
    "LoopFactory",
    "ThreadPoolMixIn",
    "ThreadingMixIn",
]


class _StrategyMixIn(Served):
    """The hooks that all mix-ins override.

    ``block_on_close`` (default ``True``): ``server_close`` waits for the requests in progress.
    """

    block_on_close: bool = True

    @default_hook
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


@brings_defaults
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


@brings_defaults
class ThreadPoolMixIn(_ThreadHookMixIn):
    """Handle requests in at most ``max_workers`` threads, which are reused.

    The pool reserves a place before it accepts a connection, so excess connections wait in the
    kernel's queue. Class attributes:

    - ``max_workers`` (threads, default 64): started when needed
    - ``max_connections`` (default ``None``: as many as workers): above ``max_workers``, accepted
      connections wait here for a worker
    - ``worker_idle_timeout`` (seconds, default 10): a worker without work ends after that
    - ``ordered_peers`` (default ``True``): datagrams of one peer are handled one after the other, as
      they came
    - ``executor`` (default ``None``): a ``concurrent.futures.Executor``, or a text such as
      ``"processes:4"``, where the messages of message handlers are handled; read when a run begins
    - ``daemon_threads`` (default ``True``): a worker does not keep the interpreter alive; where a
      program sets it to true itself, ``server_close`` does not wait for the requests in progress
    - ``block_on_close`` (default ``True``): ``server_close`` waits for the requests in progress
    """

    _everserve = RuntimeSlot(PoolStrategy)
    executor: Executor | str | None = None
    max_workers: int = 64
    max_connections: int | None = None
    worker_idle_timeout: float = 10.0
    ordered_peers: bool = True
    daemon_threads: bool = True


@brings_defaults
class FiberMixIn(_ThreadHookMixIn):
    """Handle each request in a fiber: the same blocking ``handle()``, a hundred thousand at a time.

    A wait on ``self.request``, ``rfile`` or ``wfile`` lets the other fibers run, and so does a wait in
    ``everserve.fibers`` (``sleep``, ``Event``, ``Queue``, ...). Any other blocking call blocks all
    fibers: pass it to ``everserve.fibers.offload``. Class attributes:

    - ``stall_threshold`` (seconds, default 0.1; ``None``: never): the event ``Stalled`` reports a
      handler that holds the loop for longer, with its stack, once a minute for one place in the code
    - ``coalesce_writes`` (default ``True``): all that a handler writes to ``wfile`` is sent together
      when it next waits
    - ``executor`` (default ``None``): a ``concurrent.futures.Executor``, or a text such as
      ``"processes:4"``, where the messages of message handlers are handled; read when a run begins
    - ``shutdown_grace`` (seconds, default 5): the fibers run on the thread of ``serve_forever``; after
      ``shutdown()`` it runs those in progress for this time, then cuts them
    - ``block_on_close`` (default ``True``): ``server_close`` waits for the fibers to end;
      ``daemon_threads`` (default ``False``): if true, nothing waits for them
    """

    _everserve = RuntimeSlot(FiberStrategy)
    executor: Executor | str | None = None
    stall_threshold: float | None = 0.1
    shutdown_grace: float = 5.0
    coalesce_writes: bool = True
    daemon_threads: bool = False


class AsyncMixIn(_ThreadHookMixIn):
    """Handle each request in a task of asyncio: ``async def handle(self)``.

    For streams inherit ``AsyncStreamRequestHandler``; for datagrams ``DatagramRequestHandler``, with an
    ``async def handle``. A handler with a plain ``def handle`` runs in a fiber on the same loop, as
    under ``FiberMixIn``: its waits on its connection block no one else, any other blocking call does.

    ``serve_forever()`` has a loop of its own, ``await server.serve()`` uses the one that runs. Class
    attributes, besides those of ``FiberMixIn``:

    - ``loop_factory`` (default ``None``: uvloop if it is installed, or else asyncio's): a
      ``LoopFactory``, which makes the loop for ``serve_forever()``
    - ``executor``, ``stall_threshold``, ``shutdown_grace``, ``coalesce_writes``, ``block_on_close``,
      ``daemon_threads``: as in ``FiberMixIn``; a stall is reported for handlers with a plain ``handle``
    """

    _everserve = RuntimeSlot(AsyncStrategy)
    executor: Executor | str | None = None
    loop_factory: LoopFactory | None = None
    stall_threshold: float | None = 0.1
    shutdown_grace: float = 5.0
    coalesce_writes: bool = True
    daemon_threads: bool = False

    async def serve(self: Any, poll_interval: float = 0.5) -> StopReport | None:
        """Handle requests on the running loop until ``stop()`` or ``shutdown()``.

        As ``serve_forever``, but other tasks run meanwhile. Returns the report of the stop, ``None``
        after a ``shutdown()``. Cancelled, it cuts the requests in progress, and raises
        ``CancelledError``. In a task of this loop, ``stop()`` returns at once, and this completes it.
        """
        runtime = self._everserve
        await runtime.strategy.host(lambda: self.serve_forever(poll_interval))
        stop = runtime.life.stop
        return None if stop is None else stop.report


_BATCH = 100
"""Datagrams of open sessions to receive before the loop looks at anything else."""


class DatagramSessionMixIn(Served):
    """Give all datagrams of one peer, in order, to one handler: a ``DatagramSessionHandler``.

    The first datagram of a peer opens a session, which is to the server what a connection is:
    ``verify_request``, the limits and the events are about sessions, and ``server.connections`` shows
    them. It goes before the mix-in of a strategy, which must be threads, a pool (a session holds a
    worker) or fibers: ``class Chat(DatagramSessionMixIn, FiberMixIn, UDPServer)``. Class attributes:

    - ``idle_timeout`` (seconds, default 60): a session ends when nothing has come or gone for so long
    - ``max_connections`` (default ``None``: 10,000; of a pool: ``max_workers``): the most sessions
    - ``overload`` (default ``"refuse"``): the datagrams of further peers are dropped and counted
      (``"wait"`` would have the open sessions wait too)
    - ``peer_queue`` (datagrams, default 256): how many of a session may wait for its handler
    - ``peer_queue_drops``: which is dropped above that, the ``"newest"`` (default) or the ``"oldest"``
    - ``reply_budget`` (default ``None``: no bound): how many times the bytes that a peer has sent
      ``send`` may send it before the handler has called ``validate()``

    A session ends when its handler returns, after ``idle_timeout``, and with the accept loop: the
    handler still gets what has come, then its loop over the datagrams ends.
    """

    idle_timeout: float | None = 60.0
    overload: Overload = "refuse"
    peer_queue: int = 256
    peer_queue_drops: str = "newest"
    reply_budget: float | None = None

    def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:
        """Make the server, with its table of sessions."""
        self._everserve.open_sessions()
        super().__init__(*arguments, **keywords)

    def server_activate(self: Any) -> None:
        """Have the socket receive; refuses a strategy that cannot have sessions."""
        strategy = self._everserve.strategy
        if strategy.name not in (ThreadStrategy.name, PoolStrategy.name, FiberStrategy.name):
            raise OptionError(
                f"sessions need threads, a pool or fibers, and {type(self).__name__} is"
                f" {strategy.name}"
            )
        if attribute_of(self, "proxy_protocol") is True:
            raise OptionError("proxy_protocol has no meaning for sessions: all peers would be one")
        super().server_activate()  # type: ignore[misc]

    @default_hook
    def get_request(self: Any) -> tuple[Any, Any]:
        """Receive until a peer opens a session: ``(session, client_address)``."""
        runtime = self._everserve
        sessions = runtime.open_sessions()
        for _ in range(_BATCH):
            datagram, peer = super().get_request()  # type: ignore[misc]
            session = sessions.route(datagram, peer)
            if session is not None:
                return session, peer
            if not runtime.life.serving_here():
                break
        raise BlockingIOError(EAGAIN, "all that has come was for open sessions")

    def close_request(self: Any, request: Any) -> None:
        """Forget the session."""
        if isinstance(request, Session):
            self._everserve.open_sessions().close(request)
        super().close_request(request)  # type: ignore[misc]


if hasattr(os, "fork"):

    @brings_defaults
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
