# cython: binding=False, annotation_typing=False
"""The flow of a batch of datagrams, from the socket to their handlers.

The acceptor calls it for the socket of a datagram server. Where a datagram takes no step and no hook of
the program's own, the strategy handles the whole batch, with a ``DatagramAccount`` where there are
limits, or someone subscribes; else each datagram takes the ``Flow``. One source for both engines:
``_datagramflow`` is this file, compiled, with the types of ``_datagramflow.pxd``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from everserve.concurrency.strategy import Strategy
from everserve.fibers.engines import DatagramRun
from everserve.fibers.exits import began_in_signal_handler
from everserve.lifecycle.connections import ConnectionTable
from everserve.lifecycle.emitter import Emitter
from everserve.lifecycle.progress import Progress
from everserve.lifecycle.sessions import SessionTable
from everserve.server.datagramaccount import can_keep_account, needs_account
from everserve.server.flow import Flow
from everserve.server.hooks import Hooks, is_default, thread_hook
from everserve.settings import Settings, SettingsReader
from everserve.sockets.datagrams import BATCH, LARGEST, Datagram, Exchange, report

if TYPE_CHECKING:
    from everserve.server.datagramaccount import DatagramAccount

__all__ = ["DatagramFlow"]


class DatagramFlow:
    """Takes batches for one server. The hooks come with each call. ``sessions``: those that it has."""

    def __init__(
        self,
        flow: Flow,
        account: DatagramAccount,
        *,
        settings: SettingsReader,
        progress: Progress,
        connections: ConnectionTable,
        strategy: Strategy,
        emitter: Emitter,
    ) -> None:
        self._flow = flow
        self._account = account
        self._settings = settings
        self._progress = progress
        self._connections = connections
        self._strategy = strategy
        self._emitter = emitter
        self.sessions: SessionTable | None = None
        self._looked_at: tuple[Settings, int, int] | None = None
        self._needs_nothing = self._takes_batches = False

    def begin(self) -> None:
        """A run of the server begins."""
        self._account.restart()

    def receive(self, hooks: Any, exchange: Exchange) -> list[tuple[Any, Any]]:
        """Receive a batch: pairs of request and address; empty if none waits. Raises ``OSError``."""
        size = getattr(hooks, "max_packet_size", LARGEST)
        room = self._flow.room(BATCH) if self.sessions is None else BATCH
        received = exchange.receive(hooks.socket, size, room)
        if exchange.drops:
            self._progress.dropped(exchange.drops)
        return received

    def admit(self, hooks: Hooks, exchange: Exchange, received: list[tuple[Any, Any]]) -> None:
        """See a batch on its way; an error costs its datagram alone."""
        if self.sessions is not None:
            self._route(hooks, exchange, received, self.sessions)
        elif self._is_quick(hooks):
            self._handle(hooks, exchange, received, None)
        elif self._takes_batches:
            self._account.begin(self._settings.values)
            self._handle(hooks, exchange, received, self._account)
        else:
            self._admit_each(hooks, exchange, received)

    def _is_quick(self, hooks: Hooks) -> bool:
        """True if no one needs to know of a datagram but its handler.

        A hook of the class that is replaced meanwhile counts as late as an option of the class.
        """
        settings = self._settings.read()
        state = settings, self._settings.readings, len(vars(hooks))
        if state != self._looked_at:
            self._looked_at = state
            self._takes_batches = can_keep_account(settings) and self._has_no_hooks(hooks)
            self._needs_nothing = self._takes_batches and not needs_account(settings)
        return self._needs_nothing and not self._emitter.subscribers

    def _has_no_hooks(self, hooks: Hooks) -> bool:
        return (
            self._strategy.handles_batches
            and is_default(hooks.verify_request)
            and is_default(hooks.process_request)
            and is_default(hooks.finish_request)
            and is_default(hooks.shutdown_request)
            and is_default(hooks.close_request)
            and is_default(thread_hook(hooks) or hooks.process_request)
        )

    def _handle(
        self,
        hooks: Hooks,
        exchange: Exchange,
        received: list[tuple[Any, Any]],
        account: DatagramAccount | None,
    ) -> None:
        if exchange.cut and account is None:
            for request, client_address in received:
                if type(request) is Datagram:
                    self._progress.truncated(request, client_address)

        def failed(request: Any, client_address: Any, error: BaseException) -> None:
            if began_in_signal_handler(error):
                raise error
            self._progress.failed(self._connections.find(request), request, error)
            hooks.handle_error(request, client_address)

        def ended(entry: Any, request: Any) -> bool:
            if entry.request is not request:  # it came too late for another
                self._connections.discard(entry, account)
                return False
            self._flow.end(hooks, entry)
            return True

        handler = hooks.RequestHandlerClass
        run = DatagramRun(exchange, received, handler, hooks, failed, ended, account)
        try:
            self._strategy.handle_batch(run)
        except BaseException:  # ends the run: the others of the batch go with it
            for request, client_address in run.take_rest():
                self._flow.drop(hooks, request, client_address)
            raise

    def _admit_each(
        self, hooks: Hooks, exchange: Exchange, received: list[tuple[Any, Any]]
    ) -> None:
        """Admit each; replies leave together where the handlers run here and now."""
        if self._strategy.runs_at_once:
            exchange.hold(len(received))
        begun = 0
        try:
            for request, client_address in received:
                begun += 1
                exchange.note(request, client_address)
                self._flow.admit(hooks, request, client_address)
        except BaseException:  # ends the run: the others of the batch go with it
            for request, client_address in received[begun:]:
                self._flow.drop(hooks, request, client_address)
            raise
        finally:
            self._release(hooks, exchange)

    def _release(self, hooks: Hooks, exchange: Exchange) -> None:
        """Send the replies of a batch; what fails is reported as an error of its request."""
        for error, request, client_address in exchange.release():
            report(
                lambda request, peer, error: hooks.handle_error(request, peer),
                request,
                client_address,
                error,
            )

    def _route(
        self,
        hooks: Hooks,
        exchange: Exchange,
        received: list[tuple[Any, Any]],
        sessions: SessionTable,
    ) -> None:
        """Put each into the session of its peer; the replies of quick handlers leave together."""
        collects = len(received) > 1 and self._strategy.takes_turns
        if collects:
            exchange.hold(len(received))
        routed = 0
        try:
            for request, client_address in received:
                routed += 1
                session = sessions.route(request, client_address)
                if session is not None:
                    self._flow.admit(hooks, session, client_address)
        except BaseException:  # ends the run: the others of the batch go with it
            for request, client_address in received[routed:]:
                self._flow.drop(hooks, request, client_address)
            raise
        finally:
            if collects:
                self._strategy.follow(lambda: self._release(hooks, exchange))
