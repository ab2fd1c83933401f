"""What every server of everserve offers its caller: serve, stop, suspend, look, subscribe.

``BaseServer`` has it, and so has each mix-in: under one of them a server of the standard library is
served by the same parts. What passes ``self`` on as the hooks takes it as ``Any``: the server behind a
mix-in has them, and a base class that declared them would be abstract to type checkers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from everserve.concurrency.strategy import Strategy
from everserve.errors import TLSConfigError
from everserve.events import Subscriber
from everserve.lifecycle.connection import Connection
from everserve.lifecycle.stages import Connections
from everserve.lifecycle.state import ServerState
from everserve.mistakes import warn
from everserve.options import OPTIONS, attribute_fault, check_grace
from everserve.reading import Reading
from everserve.server.hooks import default_hook, of_server
from everserve.server.runtime import RuntimeSlot
from everserve.server.servingthread import ServingThread
from everserve.server.stop import StopReport
from everserve.settings import NAMES
from everserve.sockets.attaching import woken_to_attach

__all__ = ["Served", "serving_in_background"]

WORKERS_GRACE = 5.0
"""Seconds that requests have after a ``shutdown()`` where workers serve: their processes end."""


_OPTIONS = frozenset(NAMES)


def _get_shutdown_request(self: Any) -> bool:
    return bool(self._everserve.life.shutdown_requested)


def _set_shutdown_request(self: Any, requested: bool) -> None:
    self._everserve.life.shutdown_requested = requested


class Served:
    """The methods and readings of a server that runs. See ``BaseServer``."""

    server_address: Any

    _everserve = RuntimeSlot(Strategy)
    # Programs set it to end the loop from within a handler.
    _BaseServer__shutdown_request = property(_get_shutdown_request, _set_shutdown_request)

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        _warn_of(cls.__name__, vars(cls))

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in OPTIONS:
            _warn_of(type(self).__name__, {name: value})
        if name in _OPTIONS:
            self._everserve.settings.note_change()
            self._everserve.life.wake()  # the accept loop may wait for the sake of a limit
        elif name == "service_actions":
            self._everserve.life.wake()  # it is to be called from now on

    # -- serving -------------------------------------------------------------------------------

    @of_server
    def serve_forever(self: Any, poll_interval: float = 0.5) -> None:
        """Handle requests until ``shutdown()`` or ``stop()``.

        ``poll_interval`` (seconds) is how often ``service_actions`` runs on an idle server, where it
        has something to do; nothing else waits for it. Raises ``AlreadyServingError`` if it runs
        already, ``ServerClosedError`` if the server was closed, and the ``OSError`` of a listener
        that has become unusable.
        """
        _warn_of(type(self).__name__, {n: v for n, v in vars(self).items() if n not in OPTIONS})
        self._everserve.conductor.serve(self, poll_interval)

    @of_server
    def shutdown(self) -> None:
        """End ``serve_forever``, and wait until it has ended. Requests in progress go on.

        Never dead-locks: in the thread of ``serve_forever`` (a handler of a serial server, a signal
        handler) it does not wait. While nothing serves it returns at once and is remembered: the next
        ``serve_forever`` returns at once.
        """
        elsewhere = self._everserve.elsewhere
        if elsewhere is None:
            self._everserve.conductor.shutdown()
        else:
            elsewhere.stop(WORKERS_GRACE)

    @of_server
    def handle_request(self: Any) -> None:
        """Handle one request, waiting for it at most ``timeout`` seconds, then ``handle_timeout()``.

        A timeout of the listening socket counts too, if it is shorter.
        """
        self._everserve.conductor.handle_request(self)

    @default_hook
    def _handle_request_noblock(self: Any) -> bool:
        """Take one request, which is known to wait, and see it on its way. False if none was there."""
        taken: bool = self._everserve.acceptor.take(self)
        return taken

    # -- the life cycle ------------------------------------------------------------------------

    @of_server
    @Reading
    def state(self) -> ServerState:
        """Where the server is in its life: ready, serving, suspended, draining or stopped."""
        elsewhere = self._everserve.elsewhere
        return self._everserve.life.state if elsewhere is None else elsewhere.state()

    @of_server
    @Reading
    def draining(self) -> bool:
        """True once a stop has begun: a handler should end its conversation at the next occasion."""
        elsewhere = self._everserve.elsewhere
        if elsewhere is not None:
            return elsewhere.state() in (ServerState.DRAINING, ServerState.STOPPED)
        return self._everserve.is_draining()

    @of_server
    @Reading
    def connections(self) -> Connections[Connection]:
        """A live view of the requests in progress; safe to read from any thread."""
        elsewhere = self._everserve.elsewhere
        return self._everserve.connections.view if elsewhere is None else elsewhere.connections()

    @of_server
    @Reading
    def refusals(self) -> dict[str, int]:
        """How many requests were refused so far, by reason.

        ``"receive_buffer"``: datagrams that the kernel has dropped, as the socket's buffer was full.
        """
        elsewhere = self._everserve.elsewhere
        if elsewhere is not None:
            return elsewhere.refusals()
        self._everserve.note_drops(self)
        return dict(self._everserve.control.refusals)

    @of_server
    def suspend(self) -> None:
        """Accept nothing more for now: the kernel queues what comes, requests in progress go on."""
        self._everserve.suspend(True)

    @of_server
    def resume(self) -> None:
        """Accept again after ``suspend()``."""
        self._everserve.suspend(False)

    @of_server
    def stop(self: Any, grace: float = 5.0) -> StopReport:
        """Stop for good, from anywhere, and report how it went.

        What waits in the backlog is still served, the listener closes, requests in progress have
        ``grace`` seconds to end (``draining`` is true for them), then their connections are shut down.
        ``stop(0)`` cuts at once. Always returns, also where a handler does not end; a second call,
        from another thread or a signal handler, can only shorten the grace. In the thread of
        ``serve_forever`` (a handler of a serial server, a signal handler) it returns at once, and
        ``serve_forever`` completes the stop before it returns; ``Stopped`` has the report then.
        Ends with ``server_close()``.
        """
        elsewhere = self._everserve.elsewhere
        report: StopReport = (
            self._everserve.conductor.stop(self, grace)
            if elsewhere is None
            else elsewhere.stop(check_grace(grace))
        )
        return report

    @of_server
    @contextmanager
    def running(self, *, grace: float = 5.0, poll_interval: float = 0.5) -> Iterator[Any]:
        """Serve in a background thread while the block runs; the block gets ``server_address``.

        When the block begins the server accepts; when it ends the server stops, with ``grace``. What
        ``serve_forever`` raised is raised at the end of the block, or before it begins.
        """
        with serving_in_background(self, check_grace(grace), poll_interval):
            yield self.server_address

    # -- observation ---------------------------------------------------------------------------

    @of_server
    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call ``subscriber(event)`` for every event (``everserve.events``), where it happens.

        Returns a function that ends the subscription. An exception of the subscriber is logged and
        goes no further; a slow subscriber makes the server slow.
        """
        elsewhere = self._everserve.elsewhere
        if elsewhere is not None:
            return elsewhere.subscribe(subscriber)
        return self._everserve.emitter.subscribe(subscriber)

    @of_server
    def reload_tls(self) -> None:
        """Take renewed certificates: new connections see them, those in progress live on.

        Raises ``TLSConfigError`` where a file is broken (the old ones stay in use), or where the
        server has no TLS of its own files.
        """
        tls = self._everserve.settings.read().tls
        if tls is None:
            raise TLSConfigError("there is nothing to reload: tls is no everserve.TLS")
        tls.reload()


def _warn_of(owner: str, attributes: Mapping[str, Any]) -> None:
    """Warn of each attribute that is probably meant as an option, and is none."""
    for name, value in attributes.items():
        fault = attribute_fault(name, value)
        if fault is not None:
            warn(f"{owner}.{fault}")


@contextmanager
def serving_in_background(server: Any, grace: float, poll_interval: float) -> Iterator[None]:
    """Serve in a background thread while the block runs, and stop the server at its end."""
    conductor = server._everserve.conductor
    name = f"{type(server).__name__} {server.server_address!r}"
    thread = ServingThread(lambda: server.serve_forever(poll_interval), [conductor.life], name)
    thread.start_serving()
    try:
        with woken_to_attach():
            yield
    finally:
        conductor.stop(server, grace)
    thread.join_and_raise(grace)
