"""The conductor: serve, shut down, stop, suspend; what changes the life of a server.

``serve_together`` is the run of one server, or of several in one thread with one accept loop.
"""

from __future__ import annotations

import selectors
from collections.abc import Sequence
from contextlib import ExitStack
from time import monotonic
from typing import Any

from everserve.admission.renewal import CertificateWatch
from everserve.admission.watchdog import Watchdog
from everserve.concurrency.strategy import Strategy
from everserve.errors import OptionError, ServerClosedError
from everserve.events import Serving
from everserve.executors.checking import handler_fault_with, handles_messages
from everserve.executors.execution import Execution
from everserve.lifecycle.connections import ConnectionTable
from everserve.lifecycle.emitter import Emitter
from everserve.lifecycle.loading import refuse_while_loading
from everserve.lifecycle.state import LifeCycle
from everserve.options import check_grace
from everserve.server.acceptloop import AcceptLoop, Port
from everserve.server.acceptor import Acceptor
from everserve.server.hooks import Hooks
from everserve.server.listener import Listener, listener_of
from everserve.server.naming import name_of
from everserve.server.stop import Stop, StopReport
from everserve.settings import SettingsReader
from everserve.sockets.listening import SocketFile

__all__ = ["Conductor", "serve_together"]


_OF_STEPS = (
    "tls",
    "proxy_protocol",
    "idle_timeout",
    "request_timeout",
    "write_timeout",
    "min_receive_rate",
)
"""The options that the steps of admission carry out."""


class Conductor:
    """Leads one server from its start to its end. Given the parts; the hooks come with each call.

    ``socket_file`` is the file of a Unix socket that the server has bound.
    """

    def __init__(
        self,
        *,
        settings: SettingsReader,
        life: LifeCycle,
        connections: ConnectionTable,
        strategy: Strategy,
        acceptor: Acceptor,
        emitter: Emitter,
        watchdog: Watchdog,
    ) -> None:
        self._settings = settings
        self._connections = connections
        self._acceptor = acceptor
        self._emitter = emitter
        self._watchdog = watchdog
        self._certificates: CertificateWatch | None = None
        self.life = life
        self.strategy = strategy
        self.socket_file: SocketFile | None = None

    # -- for the caller ------------------------------------------------------------------------

    def serve(self, hooks: Hooks, poll_interval: float) -> None:
        """Serve until a shutdown or a stop. Raises as ``BaseServer.serve_forever``."""
        serve_together([(self, hooks)], poll_interval)

    def shutdown(self) -> None:
        """End the run, and wait until it has ended, unless the caller stands in its way."""
        self.finish_shutdown(self.begin_shutdown())

    def begin_shutdown(self) -> int | None:
        """Ask the run to end; returns how many had ended before.

        ``None`` in a child of fork: the parent has been asked for it.
        """
        if self.strategy.relay(None):
            return None
        ended = self.life.ended
        self.life.shutdown_requested = True
        return ended

    def finish_shutdown(self, ended: int | None) -> None:
        """Wait for the end of the run that was asked for it; another one may have begun since."""
        life = self.life
        if ended is not None and not life.serving_here():
            self.strategy.wait_until(lambda: life.session is None or life.ended != ended)

    def handle_request(self, hooks: Hooks) -> None:
        """Handle one request, waiting for it as long as the server's timeouts say."""
        self._must_be_open(hooks)
        listener = listener_of(hooks)
        limits = [t for t in (listener.timeout(), getattr(hooks, "timeout", None)) if t is not None]
        deadline = monotonic() + min(limits) if limits else None
        selector = selectors.DefaultSelector() if _POLL is None else _POLL()
        self._note_tls_of(listener)
        self._open_execution(hooks)
        with listener.accepting(), AcceptLoop([self._port(hooks)], selector).open() as loop:
            if not loop.turn(deadline):
                hooks.handle_timeout()

    def stop(self, hooks: Hooks, grace: float) -> StopReport:
        """Stop for good, and report how it went; a later call can only make it sooner."""
        return self.finish_stop(hooks, self.begin_stop(grace))

    def begin_stop(self, grace: float) -> tuple[Stop, bool] | None:
        """Let the server drain; returns the stop, and true if it is new.

        ``None`` in a child of fork: the parent has been asked for it. Raises ``OptionError``.
        """
        grace = check_grace(grace)
        if self.strategy.relay(grace):
            return None
        own = Stop(
            grace,
            connections=self._connections,
            life=self.life,
            strategy=self.strategy,
            emitter=self._emitter,
            close_early=self._close_early,
        )
        first: Stop = self.life.begin_stop(own)
        if first is own:
            own.begin()
        else:
            first.hurry(grace)
        return first, first is own

    def finish_stop(self, hooks: Hooks, begun: tuple[Stop, bool] | None) -> StopReport:
        """Complete a stop that began here, or wait for one that began before."""
        if begun is None:
            return StopReport(unfinished=tuple(self._connections.view), complete=False)
        stop, is_new = begun
        return stop.conduct(hooks) if is_new else stop.join()

    def is_draining(self) -> bool:
        """True once a stop has begun, here or in another process."""
        return self.life.draining or self.strategy.is_draining()

    def close(self) -> None:
        """Note that the server is closed: a run that is in progress ends."""
        self.life.close()
        self._watchdog.close()
        if self.life.stop is not None:
            self.remove_file()
        elif self.socket_file is not None:  # the program may remove it itself, as it always had to
            self.socket_file.leave()

    def close_strategy(self) -> None:
        """End what runs requests; waits for those in progress where the server says so.

        In a stop not for ever: a handler that has closed its connection may still run.
        """
        wait = self._settings.read().block_on_close
        stop: Stop | None = self.life.stop
        if stop is None:
            self.strategy.close(wait=wait)
        else:
            self.strategy.close(wait=wait and not stop.gave_up, deadline=lambda: stop.last)
        self._close_execution(kill=stop is not None)
        self._watchdog.close()  # again: the requests that were in progress have ended

    # -- one run -------------------------------------------------------------------------------

    def begin(self, hooks: Hooks) -> bool:
        """Start a run in this thread. False if a shutdown was asked for before."""
        if not self.life.begin():
            return False
        try:
            self._must_be_open(hooks)
            self._note_tls_of(listener_of(hooks))
            self._must_take_steps()
            self._open_execution(hooks)
        except BaseException as error:
            self.life.end()
            if isinstance(error, ServerClosedError):
                self.life.close()  # as it was before ``begin``
            raise
        stop = self.life.stop
        if stop is not None and stop.report is not None:  # the socket was replaced meanwhile
            self.life.forget_stop()
        event = _shut_down_event(hooks)
        if event is not None:
            event.clear()
        self._settings.note_change()  # a run begins with the settings as they are
        self._watch_certificates()
        return True

    def enter(self, hooks: Hooks, stack: ExitStack) -> Port:
        """Put the listener into its mode until ``stack`` closes; the server's place in the loop."""
        listener = listener_of(hooks)
        self._acceptor.begin(hooks, listener)
        stack.enter_context(listener.accepting())
        stack.enter_context(listener.serving())
        return self._port(hooks)

    def _port(self, hooks: Hooks) -> Port:
        self._emitter.name = name_of(hooks)
        return Port(
            hooks,
            settings=self._settings,
            acceptor=self._acceptor,
            strategy=self.strategy,
            life=self.life,
            obey=lambda order: self._obey(hooks, order),
        )

    def announce(self, hooks: Hooks) -> None:
        """Say that the server accepts."""
        self._emitter.emit(Serving(hooks.server_address))
        self.life.announce()

    def retire(self, hooks: Hooks) -> None:
        """Close the listener of a server that stops: the loop has taken what waited."""
        stop = self.life.stop
        if stop is not None and stop.report is None:
            self._close_early(hooks)

    def _close_early(self, hooks: Hooks) -> None:
        """Close a listener of connections: what comes from now on is refused."""
        listener = listener_of(hooks)
        if listener.accepts_connections:
            self.remove_file()
            listener.close()

    def remove_file(self) -> None:
        """Remove the file of a Unix socket now: the server is stopped, or its ``with`` block ends."""
        if self.socket_file is not None:  # first: while the socket is open its inode is its own
            self.socket_file.remove()

    def has_requests(self) -> bool:
        """True while requests are in progress."""
        return len(self._connections) > 0

    def end(self, hooks: Hooks) -> None:
        """End the run: a caller that waits for it goes on, and a stop of this thread is completed."""
        if not self.life.serving_here():  # ended already; another thread may have begun a run since
            return
        if self._certificates is not None:
            self._watchdog.forget(self._certificates)
            self._certificates = None
        event = _shut_down_event(hooks)
        if event is not None:
            event.set()
        self.life.end()
        self._acceptor.end()
        stop = self.life.stop
        if stop is not None and stop.is_left_to(self.strategy.here()):
            stop.complete(hooks)

    def _must_be_open(self, hooks: Hooks) -> None:
        if hooks.fileno() < 0 or self.life.keeps_listener:
            raise ServerClosedError(f"{type(hooks).__name__} is closed: make a new server")

    def _note_tls_of(self, listener: Listener) -> None:
        tls = listener.tls()
        if tls is not None or self._settings.values.listener_tls is not None:
            self._settings.use_listener_tls(tls)

    def _must_take_steps(self) -> None:
        """Refuse an option that a step of admission carries out, where no hook would take the steps."""
        settings = self._settings.read()
        if not settings.takes_steps or self._settings.reads("admission_steps"):
            return
        for name in _OF_STEPS:
            if getattr(settings, name):
                raise OptionError(
                    f"{name} has no effect on a server of the standard library: use one of everserve's"
                    " servers"
                )

    def _open_execution(self, hooks: Hooks) -> None:
        """Open the executor, for a message handler; what another handler's server has is no option."""
        strategy, handler = self.strategy, hooks.RequestHandlerClass
        given = self._settings.read().executor
        if given is None or not handles_messages(handler):
            return
        fault = handler_fault_with(given, handler, strategy=strategy)
        if fault is not None:
            raise OptionError(fault)
        execution = strategy.execution
        if execution is None or execution.given is not given or execution.closed:
            self._close_execution(kill=False)
            once = getattr(handler, "idempotent", False) is not True
            execution = strategy.execution = Execution(given, self._emitter.log, once=once)
        execution.open()

    def _close_execution(self, *, kill: bool) -> None:
        execution = self.strategy.execution
        if execution is not None:
            execution.close(kill=kill)

    def _obey(self, hooks: Hooks, order: Any) -> None:
        if order.grace is None:
            self.shutdown()
        else:
            self.stop(hooks, order.grace)

    def _watch_certificates(self) -> None:
        settings = self._settings.read()
        interval = settings.tls_reload_interval
        if interval is not None and settings.tls is not None:
            self._certificates = CertificateWatch(settings.tls, interval)
            self._watchdog.watch(self._certificates, monotonic() + interval)


# poll(2) takes a few descriptors without one of its own; the fallback is for Windows.
_POLL: type[selectors.BaseSelector] | None = getattr(selectors, "PollSelector", None)


def _shut_down_event(hooks: Any) -> Any:
    """The standard library's own event, for programs that wait on it."""
    return getattr(hooks, "_BaseServer__is_shut_down", None)


def serve_together(members: Sequence[tuple[Conductor, Hooks]], poll_interval: float) -> None:
    """Serve with all ``members`` in this thread, over one accept loop, until they have all ended."""
    refuse_while_loading("serve_forever()")
    with ExitStack() as last:  # the run ends after all that carries it
        begun: list[tuple[Conductor, Hooks]] = []
        for conductor, hooks in members:
            if conductor.begin(hooks):
                begun.append((conductor, hooks))
                last.callback(conductor.end, hooks)
        # One loop carries all: what another strategy has is served there too.
        carrier = next((c.strategy for c, _ in begun if c.strategy.is_carried), None)
        if carrier is not None:
            carrier.carry(lambda: _serve(begun, poll_interval))
        elif begun:
            _serve(begun, poll_interval)


def _is_not_carried(strategy: Strategy) -> bool:
    return not strategy.is_carried


def _serve(members: Sequence[tuple[Conductor, Hooks]], poll_interval: float) -> None:
    try:
        _run(members, poll_interval)
    except BaseException:
        for conductor, hooks in members:
            conductor.strategy.hurry()
            conductor.strategy.drop(hooks)
        raise
    finally:
        _leave(members)


def _run(members: Sequence[tuple[Conductor, Hooks]], poll_interval: float) -> None:
    selector: selectors.BaseSelector | None = None
    for conductor, _ in sorted(members, key=lambda member: _is_not_carried(member[0].strategy)):
        selector = conductor.strategy.open_selector(selector)
    if selector is None:
        selector = selectors.DefaultSelector() if _POLL is None else _POLL()
    left = len(members)

    def retire(port: Port) -> None:
        nonlocal left
        left -= 1
        conductor = by_port[id(port)]
        conductor.retire(port.hooks)
        if left:  # else all end together, when the loop has been left
            conductor.end(port.hooks)

    with ExitStack() as stack:
        ports = [conductor.enter(hooks, stack) for conductor, hooks in members]
        by_port = {id(p): c for p, (c, _) in zip(ports, members, strict=True)}
        loop = stack.enter_context(AcceptLoop(ports, selector).open())
        for conductor, hooks in members:
            conductor.announce(hooks)
        loop.run(poll_interval, retire)


def _leave(members: Sequence[tuple[Conductor, Hooks]]) -> None:
    """Leave the loop; a run whose requests live on this thread ends before these."""
    with ExitStack() as steps:  # from the last to the first: each is taken, whatever another raises
        for conductor, hooks in members:
            steps.callback(conductor.strategy.leave)
            steps.callback(conductor.strategy.drop, hooks)
        if any(conductor.has_requests() for conductor, _ in members):
            for conductor, _ in members:
                steps.callback(conductor.strategy.linger)
            for conductor, hooks in members:
                steps.callback(conductor.end, hooks)
