"""``FiberMixIn``: a fiber for each request, all on one event loop.

The accept loop turns the hub instead of polling; requests get a ``FiberSocket``, whose waits park the
fiber. The engine is ``everserve.fibers``, which knows nothing of servers.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from time import monotonic
from typing import TYPE_CHECKING, Any

from everserve.concurrency.hubselector import HubSelector
from everserve.concurrency.requestthread import RequestThreadMixIn
from everserve.events import Stalled
from everserve.fibers.engines import (
    Fiber,
    FiberSocket,
    FiberTLSSocket,
    Hub,
    Records,
    accept_many,
    current,
)
from everserve.fibers.stalls import watch_stalls
from everserve.fibers.sync import Semaphore
from everserve.reading import option

if TYPE_CHECKING:
    from everserve.server.stopping import StopReport
    from everserve.sockets.tls import TLS, TLSSocket

__all__ = ["FiberMixIn"]

logger = logging.getLogger("everserve")

_BATCH = 100
"""Requests to take in one turn of the loop, as gevent does."""

_SHUTDOWN_GRACE = 5.0
"""Seconds that fibers have after ``shutdown()`` where the server does not say."""

_LAST_WORDS = 0.1
"""Seconds between shutting a request's connection down and killing its fiber."""


class FiberMixIn(RequestThreadMixIn):
    """Handle each request in a fiber: the same blocking ``handle()``, a hundred thousand at a time.

    What waits on ``self.request``, ``rfile`` or ``wfile`` lets the other fibers run, and so does
    ``everserve.fibers`` (``sleep``, ``Event``, ``Queue``, ...). Whatever else blocks, blocks them all:
    give it to ``everserve.fibers.offload``. Class attributes:

    - ``stall_threshold`` (seconds, default 0.1; ``None``: never): a handler that holds the loop for
      longer is told, with its stack, by the event ``Stalled``, once a place a minute
    - ``coalesce_writes`` (default ``True``): what a handler writes to ``wfile`` leaves together when
      it next waits
    - ``shutdown_grace`` (seconds, default 5): the fibers live on the thread of ``serve_forever``;
      after ``shutdown()`` it goes on for those in progress for so long, then cuts them
    - ``block_on_close`` (default ``True``): ``server_close`` waits for that;
      ``daemon_threads`` (default ``False``): nothing waits for them
    """

    stall_threshold: float | None = 0.1
    shutdown_grace: float = _SHUTDOWN_GRACE
    coalesce_writes: bool = True
    daemon_threads: bool = False
    block_on_close: bool = True
    _hub: Hub | None = None
    _closing: bool = False
    _stopper: Fiber | None = None
    _over: threading.Event | None = None

    # -- serving -------------------------------------------------------------------------------

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Handle requests until ``shutdown()`` or ``stop()``; the fibers run on this thread."""
        self._closing = False
        self._stopper = None
        self._over = threading.Event()
        self._hub = hub = Hub(on_error=self._fiber_failed)
        threshold = option(self.stall_threshold)
        if threshold is not None:
            watch_stalls(hub, self._fiber_stalled, threshold)
        try:
            if _is_ours(self):
                super().serve_forever(poll_interval)
            else:
                self._serve_by_polling(hub, poll_interval)
            self._linger(hub)
        finally:
            self._hub = None
            hub.close()
            self._over.set()

    def _open_selector(self) -> selectors.BaseSelector:
        if self._hub is None:  # handle_request() by itself
            return super()._open_selector()
        return HubSelector(self._hub)

    def _serve_by_polling(self, hub: Hub, poll_interval: float) -> None:
        """The accept loop for the standard library's servers, whose own knows no fibers."""
        server: Any = self
        server._BaseServer__is_shut_down.clear()
        hub.add_reader(self.fileno(), server._handle_request_noblock)
        try:
            while not server._BaseServer__shutdown_request:
                hub.turn(poll_interval)
                self.service_actions()
        finally:
            hub.remove_reader(self.fileno())
            server._BaseServer__shutdown_request = False
            server._BaseServer__is_shut_down.set()

    def _handle_request_noblock(self) -> bool:
        server: Any = self
        if (
            self._hub is None
            or not _is_ours(self)
            or server.socket_type != socket.SOCK_STREAM
            or not self._takes_batches()
        ):
            return super()._handle_request_noblock()
        try:
            accepted = accept_many(self.fileno(), self._batch())
        except OSError as error:
            self._accept_failed(error)
            return False
        if accepted:
            self._back_off.succeed()
        for request, client_address in accepted:
            self._admit(request, client_address)
        return bool(accepted)  # more may have come meanwhile: to try costs less than to poll

    def _batch(self) -> int:
        """How many to accept now: no more than may come in, where the rest is to wait."""
        if self.overload != "wait":
            return _BATCH
        if option(self.accept_rate) is not None:
            return 1
        room: float = self._door.handshakes_left()
        limit = option(self.max_connections)
        if limit is not None:
            room = min(room, limit - len(self._inflight))
        return int(max(1, min(_BATCH, room)))

    # -- the requests --------------------------------------------------------------------------

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a fiber that runs ``process_request_thread``."""
        if self._hub is None:  # handle_request() by itself: nothing would turn the loop
            with suppress(SystemExit):  # ends the request, as it would end a thread, or a fiber
                self.process_request_thread(request, client_address)
            return
        if type(request) is socket.socket:
            request = FiberSocket.adopt(request)
        self._hub.spawn(self.process_request_thread, request, client_address)

    def _fiber_failed(self, fiber: Fiber, error: BaseException) -> None:
        logger.error("fiber %s failed: %r", fiber.name, error, exc_info=error)

    def _fiber_stalled(self, fiber: Fiber, stack: str) -> None:
        threshold = option(self.stall_threshold)
        if threshold is not None and _is_ours(self):
            handler = getattr(self.RequestHandlerClass, "__name__", repr(self.RequestHandlerClass))
            name = handler if fiber.name == self.process_request_thread.__qualname__ else fiber.name
            self._tell(Stalled(name, threshold, stack))

    # -- the life cycle ------------------------------------------------------------------------

    def server_close(self) -> None:
        """Close the server, then wait until the thread that serves has ended its fibers."""
        super().server_close()
        hub, over = self._hub, self._over
        if hub is None or over is None or hub.is_here():
            return
        if self.daemon_threads or not self.block_on_close:
            self._closing = True
            hub.wake()
        else:
            over.wait()

    def _stop(self, grace: float) -> StopReport:
        """A fiber that calls it is the last to end."""
        if self._stopper is None:
            self._stopper = current()
        return super()._stop(grace)

    def _linger(self, hub: Hub) -> None:
        """Go on for the requests in progress, until they are done or their time is up."""
        wakeup = self._life.wakeup() if _is_ours(self) else None
        if wakeup is not None:
            hub.add_reader(wakeup.fileno(), wakeup.clear)
        until = monotonic() + option(self.shutdown_grace, _SHUTDOWN_GRACE)
        while self._has_requests(hub) and not self._closing:
            left = self._lingering_ends(until) - monotonic()
            if left <= 0:
                break
            hub.turn(left)
        if _is_ours(self) and self._has_requests(hub):
            self._cut_requests(tuple(self._inflight.view))
            self._turn_until(hub, monotonic() + _LAST_WORDS)
        if wakeup is not None:
            hub.remove_reader(wakeup.fileno())

    def _has_requests(self, hub: Hub) -> bool:
        return bool(len(self._inflight) if _is_ours(self) else hub.fibers)

    def _lingering_ends(self, until: float) -> float:
        """A stop has its own deadline; a fiber that conducts it needs the time after it."""
        stopping = self._stopping if _is_ours(self) else None
        if stopping is None:
            return until
        return stopping.ends if self._stopper is not None else stopping.deadline + _LAST_WORDS

    def _turn_until(self, hub: Hub, deadline: float) -> None:
        while self._has_requests(hub) and (left := deadline - monotonic()) > 0:
            hub.turn(left)

    def _speak_tls(self, tls: TLS, sock: socket.socket) -> TLSSocket:
        write_lock = Semaphore(1)  # a lock for threads would stop them all
        return tls.wrap(sock, write_lock=write_lock, records=Records, kind=FiberTLSSocket)

    def _runner(self) -> int:
        fiber = current()
        return super()._runner() if fiber is None else id(fiber)

    def _wait_until(
        self, condition: Callable[[], bool], deadline: Callable[[], float | None] = lambda: None
    ) -> bool:
        fiber = current()
        if fiber is None:
            return super()._wait_until(condition, deadline)
        return self._life.bell.wait_until(condition, deadline, inbox=_FiberInbox(fiber))


class _FiberInbox:
    """Where a bell rings for a fiber: parks it instead of its thread."""

    def __init__(self, fiber: Fiber) -> None:
        self._fiber = fiber
        self._rung = False

    def put(self, item: None) -> None:
        self._rung = True
        self._fiber.wake()

    def get(self, *, timeout: float | None) -> None:
        if not self._rung and not self._fiber.hub.park(timeout):
            raise Empty
        self._rung = False


def _is_ours(server: Any) -> bool:
    """True for a server of everserve, false for one of the standard library's."""
    return hasattr(server, "_life")
