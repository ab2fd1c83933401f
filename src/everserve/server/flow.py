# cython: binding=False, annotation_typing=False
"""The flow of one request, from accept to close, in the order of its steps.

The acceptor calls ``admit``, which ends at ``process_request``; where the strategy runs the request the
server's hooks call the rest: ``run``, ``finish``, ``shut_down``, ``close``.
"""

from __future__ import annotations

import socket
import sys
from contextvars import copy_context
from itertools import takewhile
from time import monotonic
from typing import Any, TypeGuard

from everserve.admission.context import Refusal, RequestContext, Step
from everserve.admission.control import (
    AdmissionControl,
    OverloadPolicy,
    reset,
    send_and_leave,
)
from everserve.admission.deadlines import TimeLimits
from everserve.admission.steps import WAITING, arm_deadlines, handshake_with, secure
from everserve.admission.watchdog import Watchdog
from everserve.concurrency.strategy import Conversation, Parking, Strategy
from everserve.errors import HandshakeError
from everserve.fibers import threadwaits
from everserve.fibers.exits import FiberExit, began_in_signal_handler
from everserve.fibers.log import logger
from everserve.lifecycle.arrival import Arrival
from everserve.lifecycle.connection import Connection
from everserve.lifecycle.connections import ConnectionTable
from everserve.lifecycle.faults import peer_is_gone
from everserve.lifecycle.progress import Progress
from everserve.lifecycle.stages import ConnectionState
from everserve.lifecycle.state import LifeCycle
from everserve.lifecycle.sweep import Sweep
from everserve.server.hooks import Hooks, is_default, thread_hook
from everserve.server.listener import listener_of
from everserve.settings import Settings, SettingsReader
from everserve.sockets.datagrams import Datagram, is_datagram

__all__ = ["Flow"]

MOST_DATAGRAMS = 1000
"""Datagrams in progress without ``max_connections``: a flood must not make ever more threads."""

_CLOSED = ConnectionState.CLOSED
_COUNTS = hasattr(socket, "TCP_INFO")

NOT_OF_POLICY = frozenset({"access", "untrusted_proxy"})
"""Refusals that no policy waives, and that are always a reset."""

OF_CLIENTS = frozenset({"access", "max_connections_per_peer", "accept_rate_per_peer"})
"""Refusals of a client behind a proxy, after the header: they cost no token of ``accept_rate``."""


class Flow:
    """What happens to a request. Given the parts of one server; the hooks come with each call."""

    def __init__(
        self,
        *,
        settings: SettingsReader,
        control: AdmissionControl,
        progress: Progress,
        connections: ConnectionTable,
        watchdog: Watchdog,
        strategy: Strategy,
        life: LifeCycle,
    ) -> None:
        self._settings = settings
        self._control = control
        self._progress = progress
        self._connections = connections
        self._filed = connections.by_request
        self._watchdog = watchdog
        self._strategy = strategy
        self._life = life
        self._sweep: Sweep | None = None
        self._swept_for: Settings | None = None
        self._bounds_datagrams = False
        self._most_sessions: int | None = None
        self._note(settings.values)

    def _note(self, settings: Settings) -> None:
        """Keep what each request asks of the settings; noted again where others are read."""
        self._noted = settings
        self._has_checks = settings.has_limits or settings.overload != "wait"
        self._counts_alone = settings.counts_alone
        self._waits = settings.overload == "wait"
        most = self._most_sessions if settings.max_connections is None else settings.max_connections
        self._most = sys.maxsize if most is None else most
        self._limits_handshakes = settings.max_handshakes is not None
        self._is_entered = settings.is_entered
        self._takes_steps = settings.takes_steps
        self._deadlines_alone = settings.deadlines_alone

    # -- before accept -------------------------------------------------------------------------

    def begin(self, *, bounds_datagrams: bool = False, most_sessions: int | None = None) -> None:
        """Note what a run takes; in a forked child the deadlines of the parent are not watched.

        ``bounds_datagrams``: datagrams, of which not too many may be in progress; ``most_sessions``:
        sessions, of which there may be so many without ``max_connections``.
        """
        self.forget_sweep()
        self._bounds_datagrams, self._most_sessions = bounds_datagrams, most_sessions
        self._note(self._settings.values)

    def forget_sweep(self) -> None:
        """Share the deadlines of no connection that has begun with those to come."""
        self._sweep = self._swept_for = None

    def has_room(self) -> bool:
        """False to leave the next request in the kernel's queue until the accept loop is woken."""
        reader = self._settings
        settings = reader.read() if reader.changed else reader.values
        if self._bounds_datagrams and not self._datagrams_left(settings):
            return False
        if not (settings.may_wait or self._strategy.is_bounded) or settings.overload != "wait":
            return True
        if self._is_full():
            if self._strategy.handshakes_hold_places:
                self._progress.make_room_of_slow_handshake()  # when it has ended, there is room
            return False
        if not settings.may_wait or self._control.has_room(settings):
            return True
        return not self._control.pause(settings) and self._progress.make_room_of_slow_handshake()

    def room(self, most: int) -> int:
        """How many to accept at once: no more than may come in, where the rest is to wait."""
        settings = self._settings.values
        if self._bounds_datagrams and not self._strategy.runs_at_once:
            most = self._strategy.room(most)
            most = max(1, min(most, self._datagrams_left(settings)))
        if not settings.may_wait:
            return most
        if settings.accept_rate is not None:
            bucket = self._control.bucket(settings) if self._bounds_datagrams else None
            return 1 if bucket is None else max(1, min(most, bucket.available()))
        room = self._control.handshakes_left(settings)
        if settings.max_connections is not None:
            room = min(room, settings.max_connections - self._load())
        return int(max(1, min(most, room)))

    def _datagrams_left(self, settings: Settings) -> int:
        """How many more datagrams may be in progress, where no limit of the program's says so."""
        if settings.max_connections is not None or self._strategy.runs_at_once:
            return MOST_DATAGRAMS
        return MOST_DATAGRAMS - self._load()

    def _load(self) -> int:
        """How many requests are in progress; of those in batches none gets an entry for that."""
        if self._bounds_datagrams:
            return self._connections.load()
        return len(self._connections.by_request)

    def in_progress(self) -> int:
        """How many requests are in progress."""
        return len(self._filed)

    def pause(self) -> float:
        """Seconds for which no one is admitted: by the rate, or until a handshake is too slow."""
        settings, control = self._settings.values, self._control
        pause = 0.0 if settings.accept_rate is None else control.pause(settings)
        if pause or not control.handshakes or settings.overload != "wait":
            return pause
        if control.has_too_many_handshakes(settings) or (
            self._strategy.handshakes_hold_places and self._is_full()
        ):
            _, pause = control.slowest_handshake() or (None, 0.0)
        return pause

    def _is_full(self) -> bool:
        """True if no more requests may be in progress: what ``overload`` is about."""
        limit = self._settings.values.max_connections
        if limit is None:
            limit = self._most_sessions
        # The strategy first: it takes a limit that was raised, also for requests that wait in it.
        return self._strategy.is_full() or (limit is not None and self._load() >= limit)

    def _has_place(self) -> bool:
        """True if no count is at its limit, or if what is above it waits in the kernel's queue."""
        if self._waits:
            return True
        if len(self._filed) >= self._most:
            return False
        if self._limits_handshakes:
            handshakes = self._settings.values.max_handshakes
            if handshakes is not None and self._control.handshakes >= handshakes:
                return False
        return not (self._strategy.is_bounded and self._strategy.is_full())

    # -- on the accept loop --------------------------------------------------------------------

    def admit(self, hooks: Hooks, request: Any, client_address: Any) -> None:
        """Admit a request that was accepted, or refuse it; an error costs that request alone."""
        reader = self._settings
        settings = reader.read() if reader.changed else reader.values  # also within a batch
        if settings is not self._noted:
            self._note(settings)
        connection = None
        try:
            violations: list[str] = []
            # Before it is counted itself; mostly there is a place, which costs less to find out.
            checks = self._has_checks and not (self._counts_alone and self._has_place())
            if checks:
                violations = self._control.violations(
                    settings, request, client_address, self._is_full
                )
            connection = self._progress.accepted(request, client_address)
            if checks:
                limit = self._refusing_limit(hooks, request, client_address, violations)
                if limit is not None:
                    self._refuse(hooks, connection, request, limit)
                    return
            if hooks.verify_request(request, client_address):
                self._start(hooks, connection, request, client_address, settings)
            else:
                self._control.give_back(settings, client_address)
                self._refuse(hooks, connection, request, "verify_request")
        except BaseException as error:
            if not isinstance(error, Exception) or began_in_signal_handler(error):
                self._abandon(hooks, connection, request)
                raise
            self._contain(hooks, connection, request, client_address, error)

    def _start(
        self,
        hooks: Hooks,
        connection: Connection | None,
        request: Any,
        client_address: Any,
        settings: Settings,
    ) -> None:
        if isinstance(request, Datagram) and request.truncated:
            self._progress.truncated(request, client_address)
        if connection is not None and self._is_entered:
            self._control.enter(settings, connection)
        hooks.process_request(request, client_address)

    def admit_again(self, hooks: Hooks, arrival: Arrival) -> None:
        """Go on with a connection that another process has admitted: no limit is asked about it."""
        request, client_address = arrival.request, arrival.client_address
        connection = self._progress.arrived(
            request, arrival.peer, arrival.accepted, arrival.pause()
        )
        connection.arrival = arrival
        connection.origin, connection.proxy = arrival.origin, arrival.proxy
        try:
            self._control.enter_again(self._settings.read(), connection)
            hooks.process_request(request, client_address)
        except Exception as error:
            self._contain(hooks, connection, request, client_address, error)
        except BaseException:
            self._abandon(hooks, connection, request)
            raise

    def drop(self, hooks: Hooks, request: Any, client_address: Any) -> None:
        """Close a request that was accepted with others, one of which has ended the run."""
        self._abandon(hooks, self._progress.accepted(request, client_address), request)

    def _abandon(self, hooks: Hooks, connection: Connection | None, request: Any) -> None:
        """Close a request, as the run ends by an exception."""
        if connection is not None and not connection.has_begun:
            self._progress.refused(connection, "stopped")
        hooks.shutdown_request(request)

    def _refusing_limit(
        self, hooks: Hooks, request: Any, client_address: Any, violations: list[str]
    ) -> str | None:
        """The limit for which the request is refused; the rate last, so that it costs no token."""
        for violation in violations:
            if not self._admits_above(hooks, request, client_address, violation):
                return violation
        settings = self._settings.values
        if not (
            settings.header_first  # the proxy's rate is not the client's
            or self._control.takes_peer_token(settings, client_address)
            or self._admits_above(hooks, request, client_address, "accept_rate_per_peer")
        ):
            return "accept_rate_per_peer"
        if self._control.takes_token(settings):
            return None
        if self._admits_above(hooks, request, client_address, "accept_rate"):
            return None
        self._control.give_back(settings, client_address, peer_only=True)
        return "accept_rate"

    def _admits_above(
        self, hooks: Hooks, request: Any, client_address: Any, violation: str
    ) -> bool:
        """True if the policy for what is above a limit makes room for the request."""
        policy = self._settings.values.overload
        if policy == "shed-idle" and violation == "max_connections" and is_datagram(request):
            return self._strategy.shed_oldest(hooks)
        if isinstance(policy, OverloadPolicy) and violation not in NOT_OF_POLICY:
            return bool(policy.decide(hooks, request, client_address, violation))
        if policy == "shed-idle" and violation == "max_connections":
            return self._progress.make_room(request, client_address)
        if policy in ("shed-idle", "reset") and violation == "max_handshakes":
            return self._progress.make_room_for_handshake(client_address)
        return False

    def _refuse(
        self, hooks: Hooks, connection: Connection | None, request: Any, reason: str
    ) -> None:
        self._run_here(connection)
        self._progress.refused(connection, reason)
        if reason != "verify_request" and self._is_reset(connection, request, reason):
            hooks.close_request(request)
        else:
            hooks.shutdown_request(request)

    def _is_reset(self, connection: Connection | None, request: Any, reason: str) -> bool:
        """Answer one that is above a limit, as ``overload`` says; true if its close is a reset."""
        settings = self._settings.values
        if settings.overload != "reset" and reason not in NOT_OF_POLICY:
            send_and_leave(request, settings.overload_message)
            return False
        reset(request)
        if connection is not None:
            connection.gone = True  # its stream needs no end
        return True

    def _contain(
        self,
        hooks: Hooks,
        connection: Connection | None,
        request: Any,
        client_address: Any,
        error: Exception,
    ) -> None:
        """Let an exception cost its own connection alone."""
        if connection is not None and connection.runner is None:  # it has not been run
            self._run_here(connection)
            self._progress.refused(connection, "error", error)
        else:
            self._progress.failed(connection, request, error)
        try:
            hooks.handle_error(request, client_address)
        finally:
            try:
                hooks.shutdown_request(request)
            except Exception:
                logger.exception("closing the request from %r failed", client_address)
            finally:
                self.end(hooks, connection)

    def _run_here(self, connection: Connection | None) -> None:
        if connection is not None and connection.runner is None:
            connection.runner = self._strategy.here()

    # -- where the request runs ----------------------------------------------------------------

    def run_here(self, hooks: Hooks, request: Any, client_address: Any) -> None:
        """Handle a request on the accept loop; what it raises is contained there."""
        connection = self._connections.find(request)
        self._run_here(connection)
        copy_context().run(hooks.finish_request, request, client_address)
        hooks.shutdown_request(request)
        self.end(hooks, connection)

    def run(self, hooks: Hooks, request: Any, client_address: Any) -> None:
        """All that a thread, or a fiber, does with a request: finish, report an error, shut down.

        What ``shutdown_request`` raises goes to ``handle_error`` too. A program whose own hooks close
        the request without these ends it here.
        """
        connection = self._filed.get(id(request)) or self._connections.find(request)
        if connection is not None and connection.runner is None:
            connection.runner = self._strategy.here()
        try:
            try:
                if self._settings.values.listener_tls is None:
                    hooks.finish_request(request, client_address)
                else:
                    self.finish_by_hook(hooks, request, client_address)
            except Exception as error:
                if began_in_signal_handler(error):
                    raise
                # ``finish`` has reported it, unless a program overrides that.
                self._progress.failed(connection, request, error)
                hooks.handle_error(request, client_address)
            finally:
                if not _is_parked(connection):
                    hooks.shutdown_request(request)
        except Exception as error:
            if began_in_signal_handler(error):
                raise
            hooks.handle_error(request, client_address)
        finally:
            if connection is not None and connection.state is not _CLOSED:
                if _is_parked(connection):
                    connection.conversation.request = request
                    connection.conversation.park()
                else:
                    self.end(hooks, connection)

    # -- between messages ----------------------------------------------------------------------

    def parking_of(
        self, hooks: Hooks, connection: Connection | None, request: Any
    ) -> Parking | None:
        """Where a message handler may leave its connection; ``None``: it waits where it runs.

        It also waits there if a program overrides a hook that returns before the connection has ended.
        """
        parking = self._strategy.parking
        if parking is None or connection is None or not parking.takes(request):
            return None
        is_plain = is_default(thread_hook(hooks)) and is_default(hooks.finish_request)
        return parking if is_plain else None

    def end_conversation(
        self, hooks: Hooks, ended: Conversation, error: BaseException | None
    ) -> None:
        """Do what ``run`` and ``finish`` do at the end of a request that was never parked."""
        connection, request, address = ended.connection, ended.request, ended.client_address
        try:
            try:
                if error is not None and not isinstance(error, FiberExit):
                    self._progress.failed(connection, request, error)
                if isinstance(error, Exception) and not began_in_signal_handler(error):
                    hooks.handle_error(request, address)
            finally:
                if ended.context is not None:
                    ended.context.leave()
                hooks.shutdown_request(request)
        except Exception:
            hooks.handle_error(request, address)
        finally:
            self.end(hooks, connection)

    def leave_to_other(self, hooks: Hooks, conversation: Conversation) -> None:
        """Close this process's copy of a connection that goes on in another one."""
        connection, request = conversation.connection, conversation.request
        self._progress.moved(connection)
        try:
            if conversation.context is not None:
                conversation.context.leave()
            hooks.close_request(request)
        except Exception:
            hooks.handle_error(request, conversation.client_address)
        finally:
            self.end(hooks, connection)

    def begin_early(
        self, hooks: Hooks, request: Any, client_address: Any
    ) -> tuple[RequestContext, tuple[Step, ...]] | None:
        """The first steps of a request, those that may wait for the peer, and their context.

        ``None`` if there are none, or if they are to be taken where the request runs: by a program's
        own hook, or over its own socket. ``finish`` goes on with the context.
        """
        steps = self._steps_to_begin(hooks)
        connection = self._filed.get(id(request))
        if (
            not steps
            or connection is None
            or connection.arrival is not None
            or type(request) is not socket.socket
            or not is_default(thread_hook(hooks))
        ):
            return None
        connection.context = self._context(hooks, connection, request, client_address)
        return connection.context, steps

    def end_refused(self, hooks: Hooks, request: Any, context: RequestContext) -> bool:
        """End a request that its first steps have refused, where no hook of the program is asked.

        False: ``finish`` is to meet what the steps have met.
        """
        refusal = context.refusal
        if (
            refusal is None
            or refusal.reason in OF_CLIENTS
            or not is_default(hooks.shutdown_request)
            or not is_default(hooks.close_request)
        ):
            return False
        self._progress.refused(context.connection, refusal.reason, refusal.__cause__)
        context.leave()
        hooks.shutdown_request(request)
        return True

    def _steps_to_begin(self, hooks: Hooks) -> tuple[Step, ...]:
        settings = self._settings.values
        if settings.listener_tls is not None and not self._settings.reads("admission_steps"):
            return (handshake_with(settings.listener_tls),)
        if (settings.handshakes_first or settings.header_first) and is_default(
            hooks.finish_request
        ):
            return tuple(takewhile(WAITING.__contains__, settings.admission_steps))
        return ()

    def finish_by_hook(self, hooks: Hooks, request: Any, client_address: Any) -> None:
        """``finish_request``; before it the handshake, where no step of admission would do it.

        That is where the listener of a server of the standard library is an ``ssl.SSLSocket``.
        """
        tls = self._settings.values.listener_tls
        if tls is None or self._settings.reads("admission_steps"):
            hooks.finish_request(request, client_address)
            return
        connection = self._connections.find(request)
        context = None if connection is None else connection.context
        context = context or self._context(hooks, connection, request, client_address)
        try:
            context.take((handshake_with(tls),))
            hooks.finish_request(context.request, client_address)
        except Refusal as refusal:
            self._progress.refused(connection, refusal.reason, refusal.__cause__)
        finally:
            context.leave()

    def finish(self, hooks: Hooks, request: Any, client_address: Any) -> None:
        """Take the steps of admission, then make the handler; its constructor handles the request."""
        connection = self._filed.get(id(request)) or self._connections.find(request)
        if connection is not None and connection.arrival is not None:
            self._finish_again(hooks, connection, connection.arrival, request, client_address)
            return
        context = None if connection is None else connection.context
        begun = False
        try:
            settings = self._settings.values if context is None else context.settings
            if settings is not self._noted:
                self._note(settings)
            if self._needs_steps(settings, connection, client_address):
                context = context or self._context(hooks, connection, request, client_address)
                context.take(settings.admission_steps)
                request, client_address = context.request, context.client_address
            if connection is not None and not self._progress.opened(
                connection, client_address, self._strategy.here
            ):
                return
            begun = True
            if self._strategy.in_threads:
                threadwaits.serve(request)
            hooks.RequestHandlerClass(request, client_address, hooks)
        except Refusal as refusal:
            self._refuse_by_step(connection, request, refusal)
        except BaseException as error:
            self._note_failure(connection, request, error, begun)
            raise
        finally:
            if context is not None:
                _leave(context, connection)

    def _needs_steps(
        self, settings: Settings, connection: Connection | None, client_address: Any
    ) -> bool:
        return self._takes_steps and not (
            self._deadlines_alone
            and type(client_address) is tuple
            and self._is_swept(settings, connection, client_address)
        )

    def _refuse_by_step(
        self, connection: Connection | None, request: Any, refusal: Refusal
    ) -> None:
        self._progress.refused(connection, refusal.reason, refusal.__cause__)
        if refusal.reason in OF_CLIENTS:
            self._control.give_back(self._settings.values, None)
            self._is_reset(connection, request, refusal.reason)
            self._life.wake()  # the accept loop may wait for the token

    def _note_failure(
        self, connection: Connection | None, request: Any, error: BaseException, begun: bool
    ) -> None:
        if isinstance(error, FiberExit):  # cut by a stop: that is no failure of the request
            if not begun and connection is not None:
                self._progress.refused(connection, "stopped")
        elif begun or connection is None:
            self._progress.failed(connection, request, error)
        else:
            self._progress.refused(connection, "error", error)

    def _finish_again(
        self,
        hooks: Hooks,
        connection: Connection,
        arrival: Arrival,
        request: Any,
        client_address: Any,
    ) -> None:
        """Go on with the handler of a connection that has arrived: only its deadlines are set here."""
        context = None
        settings = self._settings.values
        if settings is not self._noted:
            self._note(settings)
        try:
            if arm_deadlines in settings.admission_steps and self._needs_steps(
                settings, connection, client_address
            ):
                context = self._context(hooks, connection, request, client_address)
                arm_deadlines(context)
                request = context.request
            self._progress.resumed(connection, self._strategy.here)
            if self._strategy.in_threads:
                threadwaits.serve(request)
            arrival.begin(request)
        except FiberExit:
            raise
        except BaseException as error:
            self._progress.failed(connection, request, error)
            raise
        finally:
            if context is not None:
                _leave(context, connection)

    def _is_swept(
        self, settings: Settings, connection: Connection | None, client_address: Any
    ) -> bool:
        """True if a sweep checks the deadlines: where the kernel counts, and in this process."""
        if connection is None or type(client_address[0]) is not str:
            return False  # not over the internet
        if self._swept_for is settings:
            if self._watchdog.lacks_thread:
                self._watchdog.retry()
            return True
        if not _COUNTS or not self._strategy.is_here:
            return False
        self._begin_sweep(settings)
        return True

    def _begin_sweep(self, settings: Settings) -> None:
        limits = TimeLimits(settings.idle_timeout, None, settings.write_timeout)
        now = monotonic()
        if self._sweep is not None:
            self._sweep.until = now
        self._sweep = sweep = Sweep(
            limits,
            self._connections.view,
            self._progress.deadline_missed,
            self._end_sweep,
            began=now,
        )
        self._swept_for = settings
        self._watchdog.watch(sweep, sweep.first_look)

    def _end_sweep(self, sweep: Sweep) -> None:
        if self._sweep is sweep:
            self.forget_sweep()

    def _context(
        self, hooks: Hooks, connection: Connection | None, request: Any, client_address: Any
    ) -> RequestContext:
        return RequestContext(
            request,
            client_address,
            connection=connection,
            settings=self._settings.values,
            progress=self._progress,
            watchdog=self._watchdog,
            sockets=self._strategy,
            server=hooks,
        )

    def start_tls(self, hooks: Hooks, request: Any, client_address: Any) -> Any:
        """Do a TLS handshake in the middle of a connection; returns the socket to go on with.

        Raises ``ConnectionError`` where it fails, ``TLSConfigError`` without a ``tls``.
        """
        connection = self._connections.find(request)
        try:
            return secure(self._context(hooks, connection, request, client_address))
        except Refusal as refusal:
            raise HandshakeError(f"STARTTLS failed: {refusal.__cause__}") from refusal

    def log_error(self, request: Any, client_address: Any) -> None:
        """Log the exception that is being handled: one debug line where the peer went away."""
        error = sys.exception()
        connection = self._connections.find(request)
        peer = client_address if connection is None else connection.peer
        tls = None if connection is None else connection.tls
        if error is None:
            logger.error("request from %r failed", peer)
            return
        is_gone = peer_is_gone(error, request, peer, tls)
        if is_gone and connection is not None:
            connection.gone = isinstance(error, ConnectionError)
        self._progress.log_failed(connection, peer, error, is_gone)

    def shut_down(self, hooks: Hooks, request: Any, is_stream: bool = False) -> None:
        """End the stream to the peer, unless it has reset it, then ``close_request``."""
        connection = self._connections.unfile(request)
        try:
            if is_stream and (connection is None or not connection.gone):
                try:
                    request.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # the peer may be gone already
            hooks.close_request(request)
        finally:
            if connection is not None and connection.state is not _CLOSED:
                self.end(hooks, connection)

    def close(self, hooks: Hooks, request: Any, is_stream: bool = False) -> None:
        """Free what the request holds; its connection has ended."""
        connection = self._connections.unfile(request)
        if is_stream:
            request.close()
        if connection is not None:
            self._progress.ended(connection)
            if self._life.keeps_listener:
                self._close_late(hooks)

    def end(self, hooks: Hooks, connection: Connection | None) -> None:
        """End a request that no hook has ended, those of the program being its own."""
        if connection is not None and connection.state is not _CLOSED:
            self._progress.ended(connection)
            if self._life.keeps_listener:
                self._close_late(hooks)

    def _close_late(self, hooks: Hooks) -> None:
        """Close a listener that a stop has left open, when the last request that replies by it ends."""
        if not self._connections:
            self._life.keeps_listener = False
            listener_of(hooks).close()
            self._life.notifier.notify()


def _leave(context: RequestContext, connection: Connection | None) -> None:
    """End what the steps have begun, now or where the parked connection ends."""
    if _is_parked(connection):
        connection.conversation.context = context
    else:
        context.leave()


def _is_parked(connection: Connection | None) -> TypeGuard[Connection]:
    """True if the handler has returned, and its connection waits for the next message."""
    return (
        connection is not None
        and connection.conversation is not None
        and connection.conversation.parked
    )
