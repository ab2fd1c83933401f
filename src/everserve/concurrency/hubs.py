"""What the strategies share whose requests run in fibers: the hub of each run, its end, its waits.

The accept loop runs the hub instead of polling. Requests get a ``FiberSocket``, whose waits park the
fiber. The engine is ``everserve.fibers``, which is independent of servers.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from everserve.concurrency.hubselector import HubSelector
from everserve.concurrency.strategy import (
    Condition,
    MovableDeadline,
    Parking,
    StopTimes,
    Strategy,
    StrategyParts,
)
from everserve.errors import HubError
from everserve.events import Stalled
from everserve.fibers.engines import (
    DatagramRun,
    Fiber,
    FiberSocket,
    FiberTLSSocket,
    Hub,
    Records,
    accept_many,
    current,
    engine,
    here,
)
from everserve.fibers.log import logger
from everserve.fibers.stalls import watch_stalls
from everserve.fibers.sync import Semaphore
from everserve.sockets.genuine import is_patched
from everserve.sockets.tls import TLS, TLSSocket

if TYPE_CHECKING or engine == "python":
    from everserve.concurrency.hubparking import HubParking
else:
    from everserve.concurrency._hubparking import HubParking

__all__ = ["HubStrategy", "report_failure"]


_LAST_TURNS = 0.1
"""Seconds between shutting a request's connection down and killing its fiber."""


class HubStrategy(Strategy):
    """Runs each request in a fiber, on the thread of the accept loop.

    After the loop, the thread runs the fibers in progress until they end or their time is over. Without
    a loop (``handle_request``) nothing would run fibers, so the request runs at once.
    """

    runs_at_once: ClassVar[bool] = False
    takes_executor: ClassVar[bool] = True
    accept_many = staticmethod(accept_many)
    here = staticmethod(here)

    def __init__(self, parts: StrategyParts) -> None:
        super().__init__(parts)
        self._emitter = parts.emitter
        self._progress = parts.progress
        self._hub: Hub | None = None
        # By thread: one run still lingers in its thread when the next begins in another.
        self._runs: dict[int, _Run] = {}
        self._handler: Any = None
        self._parked = HubParking(self._call)
        self._stopper: Fiber | None = None

    # -- where a request runs ------------------------------------------------------------------

    def start(self, hooks: Any, request: Any, client_address: Any) -> None:
        """Start the fiber."""
        hub = self._hub
        if hub is None:
            with suppress(SystemExit):  # ends the request, as it would end a thread or a fiber
                hooks.process_request_thread(request, client_address)
            return
        self._spawn(hub, hooks, request, client_address)

    def _spawn(self, hub: Hub, hooks: Any, request: Any, client_address: Any) -> Fiber:
        if type(request) is socket.socket:
            request = self._adopt(request)
        self._handler = hooks.RequestHandlerClass
        return hub.spawn(hooks.process_request_thread, request, client_address)

    def handle_batch(self, run: DatagramRun) -> None:
        """Handle a batch in one fiber; where a handler waits, another goes on with the rest."""
        if self._hub is None:
            super().handle_batch(run)
        else:
            self._connections.begin(run)
            self._hub.spawn(self._handle_datagrams, run)

    @property
    def takes_turns(self) -> bool:  # type: ignore[override]
        """True while a hub runs the fibers."""
        return self._hub is not None

    def follow(self, function: Callable[[], object]) -> None:
        """Call ``function()`` in a fiber, after those that are ready now."""
        if self._hub is None:
            function()
        else:
            self._hub.spawn(function)

    def _handle_datagrams(self, run: DatagramRun, before: DatagramRun | None = None) -> None:
        try:
            run.runner = self.here()
            if before is not None and before.account is not None:
                self._connections.enter(before)  # it waits in a handler: the limits count it
            hub = self._hub
            if run.left and hub is not None:
                successor = run.successor()
                self._connections.begin(successor)
                hub.spawn(self._handle_datagrams, successor, run)
            run.handle()  # also with nothing left: the replies of one that waits leave now
        finally:
            self._connections.end(run)
            if self._life.gated:
                self._life.wake()

    def _adopt(self, request: socket.socket) -> FiberSocket:
        connection = self._connections.find(request)
        adopted = FiberSocket.adopt(request)
        if connection is not None:
            self._connections.replace(connection, adopted, self._progress)
        return adopted

    @property
    def parking(self) -> Parking | None:  # type: ignore[override]
        """The event loop, while it runs."""
        return None if self._hub is None else self._parked

    def wrap_tls(self, tls: TLS, sock: socket.socket) -> TLSSocket:
        """TLS whose lock parks the waiting writer: a lock for threads would stop the loop."""
        return tls.wrap(sock, write_lock=Semaphore(1), records=Records, kind=FiberTLSSocket)

    # -- the accept loop -----------------------------------------------------------------------

    def open_selector(self, selector: selectors.BaseSelector | None) -> selectors.BaseSelector:
        """The hub of this run, as a selector: a new one, or that of another server in the same loop."""
        self._stopper = None
        self.in_threads = False
        if isinstance(selector, HubSelector):
            self._begin(selector, owns_hub=False)
            return selector
        if is_patched():
            logger.warning(
                "fibers block the greenlets of gevent and eventlet: use threads with these"
            )
        own = self._new_selector()
        self._begin(own, owns_hub=True)
        threshold = self._settings.read().stall_threshold
        if threshold is not None:
            watch_stalls(own.hub, self._report_stall, threshold)
        return own

    def _new_selector(self) -> HubSelector:
        return HubSelector(Hub(on_error=report_failure))

    def _begin(self, selector: HubSelector, *, owns_hub: bool) -> None:
        self._hub = selector.hub
        self._parked.draining = False
        self._runs[threading.get_ident()] = _Run(selector, owns_hub)

    def linger(self) -> None:
        """Run the hub for the requests in progress, until they end or their time is over."""
        run = self._runs.get(threading.get_ident())
        if run is None:
            return
        until = monotonic() + self._settings.read().shutdown_grace
        with self._life.notifier.notifying(run):
            while self._connections and not run.hurried:
                left = self._lingers_until(until) - monotonic()
                if left <= 0:
                    break
                run.selector.turn(left)
            if self._connections:
                for connection in self._connections.view:
                    connection.cut()
                self._turn_until(run.selector, monotonic() + _LAST_TURNS)

    def hurry(self) -> None:
        """Wait for no request."""
        run = self._runs.get(threading.get_ident())
        if run is not None:
            run.hurried = True

    def drop(self, hooks: Any) -> None:
        """Close the requests whose fibers have not begun."""
        run = self._runs.get(threading.get_ident())
        if run is not None:
            for batch, *_ in run.selector.hub.drop_waiting(self._handle_datagrams):
                self._connections.end(batch)
            for request, _ in run.selector.hub.drop_waiting(hooks.process_request_thread):
                self._progress.refused(self._connections.find(request), "stopped")
                hooks.shutdown_request(request)

    def leave(self) -> None:
        """Close the hub of this run, and kill the fibers that are left."""
        run = self._runs.get(threading.get_ident())
        if run is None:
            return
        if self._hub is run.selector.hub:
            self._hub = None
            self.in_threads = True
        try:
            if run.owns_hub:
                run.selector.close_hub()
            if self._hub is None:
                self._handler = (
                    None  # by it the thread of the deadlines would hold a program's server
                )
        finally:
            del self._runs[threading.get_ident()]
            self._life.notifier.notify()

    def _lingers_until(self, until: float) -> float:
        """A stop has its own deadline; a fiber that conducts it needs the time after it."""
        stop: StopTimes | None = self._life.stop
        if stop is None:
            return until
        return stop.ends if self._stopper is not None else stop.deadline + _LAST_TURNS

    def _turn_until(self, selector: HubSelector, deadline: float) -> None:
        while self._connections and (left := deadline - monotonic()) > 0:
            selector.turn(left)

    # -- the stop ------------------------------------------------------------------------------

    def wait_until(self, condition: Condition, deadline: MovableDeadline = lambda: None) -> bool:
        """Wait for a change of the server's state; a fiber parks meanwhile."""
        fiber = current()
        if fiber is None:
            return super().wait_until(condition, deadline)
        return self._life.notifier.wait_until(condition, deadline, waiter=_FiberWaiter(fiber))

    def stopping(self, stop: StopTimes) -> None:
        """Note a stop; a fiber that conducts it is the last to end."""
        self._stopper = self._stopper or current()

    def drain(self) -> None:
        """Resume the connections that wait between messages: they find nothing, and end."""
        super().drain()
        self._parked.draining = True
        for run in tuple(self._runs.values()):
            run.selector.hub.call_from_thread(self._resume_parked)

    def _resume_parked(self) -> None:
        for connection in self._connections.view:
            conversation = connection.conversation
            if (
                conversation is not None
                and conversation.parked
                and not self._parked.keeps(conversation)
            ):
                conversation.request._resume_parked()

    def _call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have a fiber call ``function``, unless no hub turns any more."""
        for run in tuple(self._runs.values())[-1:]:
            run.selector.hub.call_from_thread(_spawn, run.selector.hub, function, *arguments)

    def close(self, *, wait: bool, deadline: MovableDeadline = lambda: None) -> None:
        """Wait until the serving thread has ended its fibers, or make it end them now."""
        if threading.get_ident() in self._runs:
            return
        if wait and not self._settings.read().daemon_threads:
            self.wait_until(lambda: not self._runs, deadline)
        stop: StopTimes | None = self._life.stop
        if stop is not None and stop.is_of_request:
            return  # one whose message runs in an executor: a fiber is still to send its reply
        for run in tuple(self._runs.values()):
            run.hurried = True
            run.selector.wake()

    def abandon(self) -> None:
        """Nothing is parked any more: the parking is not to keep this alive."""
        super().abandon()
        self._parked.call = _call_nothing

    # -- what the hub reports ------------------------------------------------------------------

    def _report_stall(self, fiber: Fiber, stack: str) -> None:
        threshold = self._settings.read().stall_threshold
        if threshold is not None:
            name = fiber.name
            if name.endswith(("process_request_thread", "_handle_datagrams", "resume_parked")):
                name = getattr(self._handler, "__name__", repr(self._handler))
            self._emitter.log(Stalled(name, threshold, stack))


def _call_nothing(*arguments: object) -> None:
    """No hub runs any more."""


class _Run:
    """One run of the accept loop: its hub, which a notification wakes while the run lingers."""

    def __init__(self, selector: HubSelector, owns_hub: bool) -> None:
        self.selector = selector
        self.owns_hub = owns_hub
        self.hurried = False  # the run waits for no request

    def put(self, item: None) -> None:
        self.selector.wake()


def _spawn(hub: Any, function: Callable[..., object], *arguments: Any) -> None:
    with suppress(HubError):  # it has closed meanwhile
        hub.spawn(function, *arguments)


def report_failure(fiber: Fiber, error: BaseException) -> None:
    logger.error("fiber %s failed: %r", fiber.name, error, exc_info=error)


class _FiberWaiter:
    """The waiter of a fiber: a wait for a notification parks the fiber, not its thread."""

    def __init__(self, fiber: Fiber) -> None:
        self._fiber = fiber
        self._notified = False

    def put(self, item: None) -> None:
        self._notified = True
        self._fiber.wake()

    def get(self, *, timeout: float | None) -> None:
        if not self._notified and not self._fiber.hub.park(timeout):
            raise Empty
        self._notified = False
