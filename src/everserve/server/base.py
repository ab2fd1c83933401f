"""``BaseServer``: the flow of a request as short hooks, in the order in which they are called.

Every server inherits it. The accept loop (``acceptloop``) calls ``get_request``, then each hook calls
the next; a mix-in of ``concurrency`` overrides ``process_request`` to run the rest elsewhere.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import monotonic
from types import TracebackType
from typing import Any, Self

from everserve.admission.renewal import CertificateWatch
from everserve.errors import ServerClosedError
from everserve.events import (
    Serving,
)
from everserve.reading import Reading, option
from everserve.server.acceptloop import AcceptLoop
from everserve.server.connection import Connection, Connections
from everserve.server.flow import RequestFlow
from everserve.server.lifecycle import State
from everserve.server.running import ServingThread
from everserve.server.stopping import Stopping, StopReport
from everserve.sockets.tls import TLS

__all__ = ["BaseServer"]

logger = logging.getLogger("everserve")

_LIMITS = frozenset(
    {
        "accept_burst",
        "accept_rate",
        "max_children",
        "max_connections",
        "max_handshakes",
        "max_workers",
        "overload",
    }
)
"""The attributes for whose sake the accept loop may wait."""


class BaseServer(RequestFlow):
    """The base of all servers: takes requests from somewhere and gives each to a handler.

    For the caller: ``serve_forever``, ``handle_request``, ``shutdown``, ``server_close``, ``fileno``;
    and ``stop``, ``running``, ``suspend``, ``resume``, ``state``, ``connections``, ``subscribe``.

    To be overridden, in the order in which they are called. All of the first block run on the thread
    of ``serve_forever``, the second block where the strategy runs requests (the same thread, unless
    a mix-in of ``concurrency`` says otherwise):

    - ``server_bind()``, ``server_activate()``: once, by the constructor of ``TCPServer``
    - ``get_request() -> (request, client_address)``: must not block
    - ``verify_request(request, client_address) -> bool``
    - ``process_request(request, client_address)``
    - ``service_actions()``: after each turn; where it is overridden, every ``poll_interval`` too
    - ``handle_timeout()``: when ``handle_request`` saw no request within ``timeout`` seconds

    - ``finish_request(request, client_address)``: makes the handler
    - ``handle_error(request, client_address)``: when one of these hooks or the handler raised
    - ``shutdown_request(request)``, ``close_request(request)``
    - ``server_close()``: once, at the end

    ``timeout`` (seconds, ``None``: for ever) bounds ``handle_request`` only.
    """

    timeout: float | None = None
    request_queue_size: int = socket.SOMAXCONN
    block_on_close: bool = True
    _stopping: Stopping | None = None

    def __init__(self, server_address: Any, RequestHandlerClass: Callable[..., Any]) -> None:
        """Keep the address and the handler: a class, or any callable of its three arguments."""
        super().__init__(server_address, RequestHandlerClass)
        self._watched: dict[int, Callable[[], object]] = {}
        self.__is_shut_down = threading.Event()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in _LIMITS:
            self._limit_changed()

    def _limit_changed(self) -> None:
        """Let an accept loop look again whether there is room."""
        if getattr(self, "_loop", None) is not None:  # not yet there while the server is made
            self._life.wake()

    @property
    def __shutdown_request(self) -> bool:
        # Programs set `_BaseServer__shutdown_request` to end the loop from within a handler.
        return self._life.shutdown_requested

    @__shutdown_request.setter
    def __shutdown_request(self, requested: bool) -> None:
        self._life.shutdown_requested = requested

    # -- for the caller: serving ---------------------------------------------------------------

    def fileno(self) -> int:
        """The descriptor that becomes readable when a request waits."""
        raise NotImplementedError(f"{type(self).__name__} has no fileno()")

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Handle requests until ``shutdown()`` or ``stop()``.

        ``poll_interval`` (seconds) is how often ``service_actions`` runs on an idle server, where it
        has something to do; nothing else waits for it. Raises ``AlreadyServingError`` if it runs
        already, ``ServerClosedError`` if the server was closed, and the ``OSError`` of a listener
        that has become unusable.
        """
        self._must_be_open()
        vars(self).pop("_stopping", None)  # one that was completed before the socket was replaced
        if not self._life.begin():
            return
        self.__is_shut_down.clear()
        watch = self._watch_certificates()
        try:
            with self._listener_for_serving(), AcceptLoop(self).open() as self._loop:
                self._emit(Serving(self.server_address))
                self._life.announce()
                self._loop.run(poll_interval)
                self._drain(self._loop)
        finally:
            if watch is not None:
                self._watchdog.forget(watch)
            self._loop = None
            self.__is_shut_down.set()
            self._life.end()
            self._complete_own_stop()

    def shutdown(self) -> None:
        """End ``serve_forever``, and wait until it has ended. Requests in progress go on.

        Never dead-locks: in the thread of ``serve_forever`` (a handler of a serial server, a signal
        handler) it does not wait. While nothing serves it returns at once and is remembered: the next
        ``serve_forever`` returns at once.
        """
        life = self._life
        life.shutdown_requested = True
        session = life.session
        if session is not None and not life.serving_here():
            self._wait_until(lambda: life.session is not session)

    def handle_request(self) -> None:
        """Handle one request, waiting for it at most ``timeout`` seconds, then ``handle_timeout()``.

        A timeout of the listening socket counts too, if it is shorter.
        """
        self._must_be_open()
        limits = [t for t in (self._socket_timeout(), self.timeout) if t is not None]
        deadline = monotonic() + min(limits) if limits else None
        with AcceptLoop(self).open() as loop, self._woken(loop):
            if not loop.turn(deadline):
                self.handle_timeout()

    @contextmanager
    def _woken(self, loop: AcceptLoop) -> Iterator[None]:
        """Let ``loop`` know of room made, and of what is watched, unless another one does already."""
        if self._loop is not None:
            yield
            return
        self._loop = loop
        try:
            yield
        finally:
            self._loop = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.server_close()

    # -- for the caller: the life cycle --------------------------------------------------------

    @Reading
    def state(self) -> State:
        """Where the server is in its life: ready, serving, suspended, draining or stopped."""
        return self._life.state

    @Reading
    def draining(self) -> bool:
        """True once a stop has begun: a handler should end its conversation at the next occasion."""
        return self._is_draining()

    @Reading
    def connections(self) -> Connections:
        """A live view of the requests in progress; safe to read from any thread."""
        return self._inflight.view

    def suspend(self) -> None:
        """Accept nothing more for now: the kernel queues what comes, requests in progress go on."""
        self._life.suspend(True)

    def resume(self) -> None:
        """Accept again after ``suspend()``."""
        self._life.suspend(False)

    def stop(self, grace: float = 5.0) -> StopReport:
        """Stop for good, from anywhere, and say how it went.

        What waits in the backlog is still served, the listener closes, requests in progress have
        ``grace`` seconds to end (``draining`` tells them), then their connections are shut down.
        ``stop(0)`` cuts at once. Always returns, also where a handler does not end; a second call,
        from another thread or a signal handler, can only shorten the grace. In the thread of
        ``serve_forever`` (a handler of a serial server, a signal handler) it returns at once, and
        ``serve_forever`` completes the stop before it returns; ``Stopped`` has the report then.
        Ends with ``server_close()``.
        """
        return self._stop(grace)

    def _stop(self, grace: float) -> StopReport:
        own = Stopping(self, grace)
        first: Stopping = vars(self).setdefault("_stopping", own)  # one step: many may call at once
        return own.conduct(grace) if first is own else first.join(grace)

    @contextmanager
    def running(self, *, grace: float = 5.0, poll_interval: float = 0.5) -> Iterator[Any]:
        """Serve in a background thread while the block runs; the block gets ``server_address``.

        When the block begins the server accepts; when it ends the server stops, with ``grace``. What
        ``serve_forever`` raised is raised at the end of the block, or before it begins.
        """
        thread = ServingThread(self, poll_interval)
        thread.start_serving()
        try:
            yield self.server_address
        finally:
            self._stop(grace)
        thread.join_and_raise(grace)

    # -- for strategies ----------------------------------------------------------------------

    def _attend(self) -> None:
        """Do what is to be done after each wake-up of the accept loop, whoever runs it."""

    def _watch(self, descriptor: int, callback: Callable[[], object]) -> None:
        """Call ``callback()`` on the accept loop whenever ``descriptor`` is readable.

        For strategies; to be called on the accept loop, as ``_unwatch``, before the descriptor closes.
        """
        self._watched[descriptor] = callback
        if self._loop is not None:
            self._loop.watch(descriptor)

    def _unwatch(self, descriptor: int) -> None:
        """End a ``_watch``."""
        self._watched.pop(descriptor, None)
        if self._loop is not None:
            self._loop.unwatch(descriptor)

    # -- the end -------------------------------------------------------------------------------

    def server_close(self) -> None:
        """Free what the server holds. A ``serve_forever`` that still runs ends."""
        self._life.close()
        self._watchdog.close()

    def _must_be_open(self) -> None:
        if self.fileno() < 0 or self._has_last_words():
            raise ServerClosedError(f"{type(self).__name__} is closed: make a new server")

    def _stop_listening(self) -> None:
        """Close the listener, unless requests in progress reply through it (a datagram socket)."""

    def _close_listener(self) -> None:
        """Close the socket of the server."""

    def _replying_later(
        self, requests: tuple[Connection, ...], deadline: float
    ) -> AbstractContextManager[object]:
        """Around the closing at the end of a stop, which is not to take the means to reply from
        ``requests``, that have called for it, before ``deadline`` (monotonic)."""
        return nullcontext()

    def _has_last_words(self) -> bool:
        """True while the socket of a stopped server is open for the sake of such a reply alone."""
        return False

    def _listener_for_serving(self) -> AbstractContextManager[object]:
        """Around ``serve_forever``: put the listener into the mode that the accept loop needs."""
        return nullcontext()

    def _takes_batches(self) -> bool:
        """True if ``get_request`` says at once that nothing waits, so that it may be called again."""
        return False

    def _socket_timeout(self) -> float | None:
        return None

    def _drain(self, loop: AcceptLoop) -> None:
        """If a stop has begun: serve what waits already, then listen no more."""
        if self._stopping is not None and self._stopping.report is None:
            loop.drain(self._stopping)
            self._stop_listening()

    def _complete_own_stop(self) -> None:
        """Do the rest of a stop that a request on this thread has called for."""
        if self._stopping is not None and self._stopping.is_left_to(self._runner()):
            self._stopping.complete()

    def _watch_certificates(self) -> CertificateWatch | None:
        interval = option(self.tls_watch)
        if interval is None or not isinstance(self.tls, TLS):
            return None
        watch = CertificateWatch(self.tls, interval)
        self._watchdog.watch(watch, monotonic() + interval)
        return watch

    def _is_draining(self) -> bool:
        return self._life.state in (State.DRAINING, State.STOPPED)

    def _wait_until(
        self, condition: Callable[[], bool], deadline: Callable[[], float | None] = lambda: None
    ) -> bool:
        """Wait for a change of the server's state; false if ``deadline()`` passed before."""
        return self._life.bell.wait_until(condition, deadline)

    def _open_selector(self) -> selectors.BaseSelector:
        """What the accept loop waits with."""
        # poll(2) takes a few descriptors without one of its own; the fallback is for Windows.
        return getattr(selectors, "PollSelector", selectors.SelectSelector)()

    def _report_of_others(self) -> StopReport:
        """What ``stop`` returns where another thread or process completes it."""
        return StopReport(unfinished=tuple(self._inflight.view))

    def _await_requests(
        self, quiet: Callable[[], bool], deadline: Callable[[], float | None]
    ) -> bool:
        """Wait until ``quiet()``; false if ``deadline()`` passed before. A strategy may help it on."""
        return self._wait_until(quiet, deadline)

    def _cut_requests(self, connections: tuple[Connection, ...]) -> None:
        """Shut down those connections, so that their handlers come to an end."""
        for connection in connections:
            connection.cut()
