"""The flow of one request, from accept to close, as short hooks in the order of their calls.

``BaseServer`` adds the life cycle. The accept loop calls ``_handle_request_noblock``, then each hook
calls the next; a mix-in of ``concurrency`` overrides ``process_request`` to run the rest elsewhere.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Callable
from math import inf
from typing import Any

from everserve.admission.access import Access, Networks
from everserve.admission.deadlines import Watchdog
from everserve.admission.door import Door, Overload, reset, say_and_leave, twin_of
from everserve.admission.outcome import Outcome
from everserve.admission.steps import (
    HANDSHAKE_TIMEOUT,
    PROXY_TIMEOUT,
    STEPS,
    Passage,
    Refusal,
    Step,
    secure,
)
from everserve.errors import HandshakeError, RemoteError, TLSConfigError
from everserve.events import (
    Accepted,
    BackedOff,
    DeadlineMissed,
    Event,
    Failed,
    Finished,
    Opened,
    Refused,
    Shed,
    Subscriber,
)
from everserve.fibers.engines import Records
from everserve.fibers.exits import FiberExit
from everserve.reading import Reading, option
from everserve.server.acceptloop import AcceptLoop, has_service
from everserve.server.connection import Connection, ConnectionState
from everserve.server.faults import peer_is_gone
from everserve.server.inflight import Inflight
from everserve.server.lifecycle import Life, State
from everserve.sockets.accepting import BackOff, Verdict, classify
from everserve.sockets.counted import CountedSocket
from everserve.sockets.tls import TLS, TLSSocket

__all__ = ["RequestFlow"]

logger = logging.getLogger("everserve")


class RequestFlow:
    """What happens to a request. The hooks are described on ``BaseServer``.

    The attributes of admission; ``None`` is no limit, times are in seconds. A change on a running
    server counts from the next connection:

    - ``max_connections``, ``max_connections_per_peer`` (an IPv6 peer is its /64), ``accept_rate``
      (connections a second) with ``accept_burst``, ``max_handshakes`` in progress
    - ``overload``: what to do above a limit: ``"wait"`` (default: the kernel queues), ``"refuse"``
      (send ``overload_message``, close), ``"reset"``, ``"shed-idle"`` (cut the connection that has
      been idle longest), or ``callable(server, request, client_address, reason)``, true to let it in
    - ``access``: an ``Access``, the networks that may connect
    - ``steps``: what a request goes through where it runs, before its handler: by default the PROXY
      header, the TLS handshake, the deadlines
    - ``proxy_protocol`` (default ``False``), ``trusted_proxies`` (``Networks``, required with it),
      ``proxy_timeout`` (5)
    - ``tls`` (``None``, a ``TLS`` or an ``ssl.SSLContext``), ``handshake_timeout`` (10);
      ``implicit_tls`` (default ``True``): from the first byte; ``False``: with ``start_tls()``;
      ``tls_watch`` (``None``): look so often whether its files were renewed
    - ``idle_timeout`` (no byte either way), ``request_timeout`` (all of ``handle()``),
      ``write_timeout`` (a peer that does not read), ``min_receive_rate`` (bytes a second on average)
    """

    max_connections: int | None = None
    max_connections_per_peer: int | None = None
    accept_rate: float | None = None
    accept_burst: float | None = None
    max_handshakes: int | None = None
    overload: Overload = "wait"
    overload_message: bytes = b""
    access: Access | None = None
    steps: tuple[Step, ...] = STEPS
    proxy_protocol: bool = False
    trusted_proxies: Networks = Networks()
    proxy_timeout: float = PROXY_TIMEOUT
    tls: Any = None
    implicit_tls: bool = True
    tls_watch: float | None = None
    handshake_timeout: float = HANDSHAKE_TIMEOUT
    idle_timeout: float | None = None
    request_timeout: float | None = None
    write_timeout: float | None = None
    min_receive_rate: float | None = None

    server_address: Any
    RequestHandlerClass: Callable[..., Any]
    _life: Life
    _loop: AcceptLoop | None

    def __init__(self, server_address: Any, RequestHandlerClass: Callable[..., Any]) -> None:
        self.server_address = server_address
        self.RequestHandlerClass = RequestHandlerClass
        self._life = Life(self._runner)
        self._loop = None
        self._inflight = Inflight(self._ended, self._runner)
        self._back_off = BackOff()
        self._door = Door(self)
        self._watchdog = Watchdog()
        self._subscribers: tuple[Subscriber, ...] = ()

    def reload_tls(self) -> None:
        """Take renewed certificates: new connections see them, those in progress live on.

        Raises ``TLSConfigError`` where a file is broken (the old ones stay in use), or where the
        server has no TLS of its own files.
        """
        if not isinstance(self.tls, TLS):
            raise TLSConfigError("there is nothing to reload: tls is no everserve.TLS")
        self.tls.reload()

    def _count(self, sock: socket.socket) -> CountedSocket:
        """The layer that counts what moves over ``sock``, where the kernel does not."""
        return CountedSocket(sock)

    def _speak_tls(self, tls: TLS, sock: socket.socket) -> TLSSocket:
        """TLS over ``sock``, before its handshake."""
        return tls.wrap(sock, records=Records)

    def _runner(self) -> int:
        """Who runs now: two requests with the same runner cannot run at the same time."""
        return threading.get_ident()

    # -- for the caller: events ----------------------------------------------------------------

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call ``subscriber(event)`` for every event (``everserve.events``), where it happens.

        Returns a function that ends the subscription. An exception of the subscriber is logged and
        goes no further; a slow subscriber makes the server slow.
        """
        self._subscribers = (*self._subscribers, subscriber)

        def unsubscribe() -> None:
            left = list(self._subscribers)
            if subscriber in left:
                left.remove(subscriber)
            self._subscribers = tuple(left)

        return unsubscribe

    def _emit(self, event: Event) -> None:
        """Hand ``event`` to the subscribers. Costs one test when there are none."""
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:
                logger.exception("subscriber %r failed at %s", subscriber, event)

    def _tell(self, event: Event) -> None:
        logger.log(event.level, "%s", event, extra={"event": event})
        self._emit(event)

    # -- the flow: on the accept loop ----------------------------------------------------------

    def server_activate(self) -> None:
        """Begin to listen. Called by the constructor of ``TCPServer``."""

    def get_request(self) -> tuple[Any, Any]:
        """Take one request: ``(request, client_address)``. To be overridden."""
        raise NotImplementedError(f"{type(self).__name__} has no get_request()")

    def _handle_request_noblock(self) -> bool:
        """Take one request, which is known to wait, and see it on its way. False if none was there."""
        try:
            request, client_address = self.get_request()
        except OSError as error:
            self._accept_failed(error)
        except Exception as error:
            self._failed_early(f"{type(self).__name__}.get_request()", error)
        else:
            self._back_off.succeed()
            self._admit(request, client_address)
            return True
        return False

    def _admit(self, request: Any, client_address: Any) -> None:
        objections: list[str] = []
        wrong = None
        try:
            objections = self._door.objections(client_address)
        except Exception as error:  # a value that cannot be read was assigned while it runs
            wrong = error
        connection = self._inflight.add(request, client_address)
        if self._subscribers:
            self._emit(Accepted(connection.id, client_address))
        try:
            if wrong is not None:
                raise wrong
            for objection in objections:
                if not self._let_in(request, client_address, objection):
                    self._turn_away(connection, request, objection)
                    return
            if self.verify_request(request, client_address):
                if self.max_connections_per_peer is not None or self.tls is not None:
                    self._door.enter(connection)  # what else is counted is in _inflight
                self.process_request(request, client_address)
            else:
                self._turn_away(connection, request, "verify_request")
        except Exception as error:
            self._contain(connection, request, client_address, error)
        except BaseException:
            self.shutdown_request(request)
            raise

    def _let_in(self, request: Any, client_address: Any, objection: str) -> bool:
        """True if the policy for what is above a limit makes room for the request."""
        policy: Any = self.overload
        if callable(policy) and objection != "access":
            if getattr(policy, "__self__", None) is self:  # it stands on the class, as a method
                policy = policy.__func__
            return bool(policy(self, request, client_address, objection))
        if policy == "shed-idle" and objection == "max_connections":
            return self._shed_idle(request)
        return False

    def _shed_idle(self, request: Any) -> bool:
        idle = self._inflight.shed(but=request)
        if idle is None:
            return False
        self._emit(Shed(idle.id, idle.peer))
        idle.cut()
        return True

    def _turn_away(self, connection: Connection, request: Any, reason: str) -> None:
        connection.runner = self._runner()
        self._refuse(connection, reason)
        if reason == "verify_request":
            self.shutdown_request(request)
        elif self.overload == "reset" or reason == "access":
            reset(request)
            self.close_request(request)
        else:
            say_and_leave(request, option(self.overload_message, b""))
            self.shutdown_request(request)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return true to go on with this request, false to close it."""
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Run the request. The mix-ins override it to do so in a thread, a process, a fiber."""
        self.finish_request(request, client_address)
        self.shutdown_request(request)

    def service_actions(self) -> None:
        """Called after each turn of the accept loop; for what is to be done there regularly."""

    def _needs_service(self) -> bool:
        """True if ``service_actions`` has something to do even while no request comes.

        That is so where a class overrides it; a class that defines both answers for itself.
        """
        return "service_actions" in vars(self) or has_service(type(self))  # type: ignore[arg-type]

    def _has_room(self) -> bool:
        """False to leave the next request in the kernel's queue until the accept loop is woken."""
        try:
            return self._door.is_open()
        except Exception as error:  # as in _admit; nobody can come in until it is mended
            self._failed_early("a limit", error)
            return False

    def _is_full(self) -> bool:
        """True if no more requests may be in progress: what ``overload`` is about."""
        limit = self.max_connections
        return limit is not None and len(self._inflight) >= option(limit, inf)

    def handle_timeout(self) -> None:
        """Called by ``handle_request`` when no request came within ``timeout``."""

    # -- the flow: where the request runs ------------------------------------------------------

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Take the steps of admission, then make the handler; its constructor handles the request."""
        connection = self._inflight.begin(request, client_address)
        passage = None
        try:
            if self._has_steps_to_take():
                passage = Passage(self, connection, request, client_address)
                passage.go_through(option(self.steps, STEPS))
                self._open(connection, passage.client_address)
                self.RequestHandlerClass(passage.request, passage.client_address, self)
            else:
                self._open(connection, client_address)
                self.RequestHandlerClass(request, client_address, self)
        except Refusal as refusal:
            self._refuse(connection, refusal.reason, refusal.__cause__)
        except FiberExit:
            raise  # cut by a stop: that is no failure of the request
        except BaseException as error:
            self._fail(connection, request, error)
            raise
        finally:
            if connection is not None:
                connection.done = True
            if passage is not None:
                passage.leave()

    def _has_steps_to_take(self) -> bool:
        """False for a server that asks nothing: a tenth of what a short connection costs is saved."""
        return (
            self.tls is not None
            or self.proxy_protocol
            or self.idle_timeout is not None
            or self.request_timeout is not None
            or self.write_timeout is not None
            or self.min_receive_rate is not None
            or self.overload == "shed-idle"
            or self.steps is not STEPS
        )

    def _open(self, connection: Connection | None, client_address: Any) -> None:
        if connection is not None:
            if connection.greeting:
                self._greeted(connection)
            connection.runner = self._runner()
            connection.state = ConnectionState.HANDLING
            if self._subscribers:
                self._emit(Opened(connection.id, client_address))

    def _start_tls(self, request: Any, client_address: Any) -> Any:
        """Do a TLS handshake in the middle of a connection; returns the socket to go on with.

        ``StreamRequestHandler.start_tls`` calls it. Raises ``ConnectionError`` where it fails.
        """
        if option(self.tls) is None:
            raise TLSConfigError("start_tls() needs the server's tls")
        passage = Passage(self, self._inflight.find(request), request, client_address)
        try:
            return secure(passage)
        except Refusal as refusal:
            raise HandshakeError(f"STARTTLS failed: {refusal.__cause__}") from refusal

    @Reading
    def refusals(self) -> dict[str, int]:
        """How many requests were turned away so far, by reason."""
        return dict(self._door.refusals)

    def _connection_of(self, request: Any) -> Connection | None:
        """The entry among ``connections`` that a handler's ``request`` belongs to."""
        return self._inflight.find(request)

    def shutdown_request(self, request: Any) -> None:
        """Tell the peer that nothing more comes, then ``close_request``."""
        connection = self._inflight.unfile(request)
        self.close_request(request)
        self._ended(connection)

    def close_request(self, request: Any) -> None:
        """Free what the request holds."""
        self._ended(self._inflight.unfile(request))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log the exception that is being handled, of ``client_address``'s request.

        A peer that went away is one debug line; anything else is an error with its traceback, on the
        logger ``everserve``.
        """
        error = sys.exception()
        connection = self._inflight.find(request)
        peer = client_address if connection is None else connection.peer
        tls = None if connection is None else connection.tls
        if error is None:
            logger.error("request from %s failed", peer)
        elif peer_is_gone(error, request, peer, tls):
            if connection is not None:
                connection.gone = isinstance(error, ConnectionError)
            logger.debug("peer %s went away: %r", peer, error)
        else:
            logger.error("request from %s failed: %r", peer, error, exc_info=error)

    def _request_moved(self, request: Any, process: int) -> None:
        """Another process has the request now: keep it among the connections until it is returned."""
        connection = self._inflight.find(request)
        if self.overload == "shed-idle" and connection is not None:
            connection.twin = twin_of(request)  # to be looked at, and cut
        self._inflight.hold(request, process)

    def _request_returned(self, process: int, outcome: Outcome | None = None) -> None:
        """The process that had a request has ended; ``outcome`` is how the request has."""
        connection = self._inflight.release(process)
        if connection is not None and outcome is not None:
            self._tell_outcome(connection, outcome)
        self._ended(connection)

    def _tell_outcome(self, connection: Connection, outcome: Outcome) -> None:
        error = RemoteError(outcome.error) if outcome.error else None
        if outcome.missed:
            self._deadline_missed(connection, outcome.missed)
        if outcome.refused:
            self._refuse(connection, outcome.refused, error)
        elif outcome.failed:
            self._fail(connection, None, error or RemoteError("unknown"), outcome.peer_gone)

    # -- what went wrong -----------------------------------------------------------------------

    def _accept_failed(self, error: OSError) -> None:
        verdict = classify(error)
        if verdict is Verdict.FATAL and self._life.state is not State.STOPPED:
            raise error
        if verdict is Verdict.BACK_OFF:
            self._pause(error)

    def _pause(self, error: OSError) -> None:
        delay = self._back_off.fail()
        if delay is not None:
            self._tell(BackedOff(error, delay, self._back_off.told()))

    def _failed_early(self, what: str, error: Exception) -> None:
        """It failed before there was a request: told, and not repeated at full speed."""
        self._back_off.fail()
        error.add_note(f"raised by {what}, before there was a request")
        self.handle_error(None, None)

    def _contain(self, connection: Connection, request: Any, peer: Any, error: Exception) -> None:
        """Let an exception cost its own connection alone."""
        if connection.runner is None:
            connection.runner = self._runner()
        self._fail(connection, request, error)
        try:
            self.handle_error(request, peer)
        finally:
            try:
                self.shutdown_request(request)
            except Exception:
                logger.exception("closing the request from %s failed", peer)
                self._ended(connection)

    def _fail(
        self,
        connection: Connection | None,
        request: Any,
        error: BaseException,
        gone: bool | None = None,
    ) -> None:
        if connection is None or connection.failed:
            return
        connection.failed = True
        if self._subscribers:
            if gone is None:
                gone = peer_is_gone(error, request, connection.peer, connection.tls)
            self._emit(Failed(connection.id, connection.peer, error, gone))

    def _refuse(
        self, connection: Connection | None, reason: str, error: BaseException | None = None
    ) -> None:
        self._door.refuse(reason)
        if connection is None or connection.failed:
            return
        connection.failed = True
        if self._subscribers:
            self._emit(Refused(connection.id, connection.peer, reason, error))

    def _deadline_missed(self, connection: Connection | None, name: str) -> None:
        """Called by the watchdog's thread: the connection ends, its handler with it."""
        if connection is None or connection.missed or connection.request is None:
            return
        connection.missed = name
        self._emit(DeadlineMissed(connection.id, connection.peer, name))
        connection.cut()

    def _greet(self, connection: Connection | None) -> None:
        """A TLS handshake begins."""
        if connection is not None and not connection.greeting:
            self._door.greet(connection)

    def _greeted(self, connection: Connection | None) -> None:
        """The TLS handshake is over: another one may begin."""
        if connection is not None and self._door.greeted(connection):
            self._life.wake()

    def _ended(self, connection: Connection | None) -> None:
        if connection is not None and self._inflight.remove(connection):
            if connection.counted is not None or connection.greeting:
                self._door.leave(connection)
            if self._subscribers and not connection.failed:
                self._emit(Finished(connection.id, connection.peer, connection.age))
            if self._loop is not None and self._loop.gated:
                self._life.wake()
            self._life.bell.ring()
