"""``BaseServer``: the flow of a request as short hooks, in the order in which they are called.

Every server inherits it. The acceptor calls ``get_request``, then each hook is called by what stands
behind it; a mix-in overrides ``process_request`` to run the rest elsewhere.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from everserve.admission.access import AccessRules, Networks
from everserve.admission.context import Step
from everserve.admission.control import Overload
from everserve.admission.steps import HANDSHAKE_TIMEOUT, PROXY_TIMEOUT, STEPS
from everserve.errors import OptionError
from everserve.executors.checking import handler_fault_with, handles_messages
from everserve.executors.plan import check_executor, is_executor
from everserve.mistakes import DEFINE_IT, TAKE_THREE, handler_fault, transport_fault, warn
from everserve.reading import attribute_of
from everserve.server.hooks import default_hook
from everserve.server.served import Served
from everserve.sockets.tls import TLS

__all__ = ["BaseServer"]


class BaseServer(Served):
    """The base of all servers: takes requests from somewhere and gives each to a handler.

    For the caller: ``serve_forever``, ``handle_request``, ``shutdown``, ``server_close``, ``fileno``;
    and ``stop``, ``running``, ``suspend``, ``resume``, ``state``, ``connections``, ``subscribe``.

    To be overridden, in the order in which they are called. All of the first block run on the thread
    of ``serve_forever``, the second block where the strategy runs requests (the same thread, unless
    a mix-in says otherwise):

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

    The options of admission; ``None`` is no limit, times are in seconds. A change on a running server
    counts from the next connection. An attribute of another type than its option's is the program's
    own, and is no option:

    - ``max_connections``, ``max_connections_per_peer`` (an IPv6 peer is its /64), ``accept_rate``
      (connections a second) with ``accept_burst``, ``accept_rate_per_peer``, ``max_handshakes`` in
      progress
    - ``overload``: what to do above a limit: ``"wait"`` (default: the kernel queues), ``"refuse"``
      (send ``overload_message``, close), ``"reset"``, ``"shed-idle"`` (cut the connection that has
      been idle longest), or an ``OverloadPolicy``
    - ``access``: ``AccessRules``, the networks that may connect
    - ``admission_steps``: what a request goes through where it runs, before its handler: by default
      the PROXY header, the TLS handshake, the deadlines
    - ``proxy_protocol`` (default ``False``), ``trusted_proxies`` (``Networks``, required with it),
      ``proxy_timeout`` (5)
    - ``tls`` (``None`` or a ``TLS``), ``handshake_timeout`` (10); ``implicit_tls`` (default ``True``):
      from the first byte; ``False``: with ``start_tls()``; ``tls_reload_interval`` (``None``): how
      often to look whether its files were renewed
    - ``idle_timeout`` (no byte either way), ``request_timeout`` (all of ``handle()``),
      ``write_timeout`` (a peer that does not read), ``min_receive_rate`` (bytes a second on average)
    - ``max_line`` (``None``): bytes that a line may have in a handler that does not say so itself
    - ``coalesce_writes`` (default ``False``): what a handler writes to ``wfile`` leaves together when
      it next waits
    """

    timeout: float | None = None
    request_queue_size: int = socket.SOMAXCONN
    max_connections: int | None = None
    max_connections_per_peer: int | None = None
    accept_rate_per_peer: float | None = None
    accept_rate: float | None = None
    accept_burst: float | None = None
    max_handshakes: int | None = None
    overload: Overload = "wait"
    overload_message: bytes = b""
    access: AccessRules | None = None
    admission_steps: tuple[Step, ...] = STEPS
    proxy_protocol: bool = False
    trusted_proxies: Networks = Networks()
    proxy_timeout: float = PROXY_TIMEOUT
    tls: TLS | None = None
    implicit_tls: bool = True
    tls_reload_interval: float | None = None
    handshake_timeout: float = HANDSHAKE_TIMEOUT
    idle_timeout: float | None = None
    request_timeout: float | None = None
    write_timeout: float | None = None
    min_receive_rate: float | None = None
    max_line: int | None = None
    coalesce_writes: bool = False

    RequestHandlerClass: Callable[..., Any]

    def __init__(self, server_address: Any, RequestHandlerClass: Callable[..., Any]) -> None:
        """Keep the address and the handler: a class, or any callable of its three arguments."""
        self.server_address = server_address
        self.RequestHandlerClass = RequestHandlerClass
        self.__is_shut_down = threading.Event()
        self._everserve.life.prepare()
        _warn_of_handler(self)
        _check_executor(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._everserve.conductor.remove_file()
        self.server_close()

    # -- the flow: on the accept loop ----------------------------------------------------------

    def server_activate(self) -> None:
        """Begin to listen. Called by the constructor of ``TCPServer``."""

    def fileno(self) -> int:
        """The descriptor that becomes readable when a request waits."""
        raise NotImplementedError(f"{type(self).__name__} has no fileno()")

    def get_request(self) -> tuple[Any, Any]:
        """Take one request: ``(request, client_address)``. To be overridden."""
        raise NotImplementedError(f"{type(self).__name__} has no get_request()")

    @default_hook
    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return true to go on with this request, false to close it."""
        return True

    @default_hook
    def process_request(self, request: Any, client_address: Any) -> None:
        """Run the request. The mix-ins override it to do so in a thread, a process, a fiber."""
        self._everserve.flow.run_here(self, request, client_address)

    @default_hook
    def service_actions(self) -> None:
        """Called after each turn of the accept loop; for what is to be done there regularly."""

    def handle_timeout(self) -> None:
        """Called by ``handle_request`` when no request came within ``timeout``."""

    # -- the flow: where the request runs ------------------------------------------------------

    @default_hook
    def finish_request(self, request: Any, client_address: Any) -> None:
        """Take the steps of admission, then make the handler; its constructor handles the request."""
        self._everserve.flow.finish(self, request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log the exception that is being handled, of ``client_address``'s request.

        A peer that went away is one debug line; anything else is an error with its traceback, on the
        logger ``everserve``.
        """
        self._everserve.flow.log_error(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End the stream to the peer, then ``close_request``."""
        self._everserve.flow.shut_down(self, request)

    def close_request(self, request: Any) -> None:
        """Free what the request holds."""
        self._everserve.flow.close(self, request)

    # -- the end -------------------------------------------------------------------------------

    def server_close(self) -> None:
        """Free what the server holds. A ``serve_forever`` that still runs ends."""
        self._everserve.conductor.close()


def _check_executor(server: BaseServer) -> None:
    """Raise ``OptionError`` for messages that cannot be handled by the server's ``executor``.

    The attribute may be the program's own, but not where there is a message handler.
    """
    handler = server.RequestHandlerClass
    executor = attribute_of(server, "executor") if handles_messages(handler) else None
    if is_executor(executor):
        check_executor(executor)
        fault = handler_fault_with(executor, handler, strategy=server._everserve.strategy)
        if fault is not None:
            raise OptionError(fault)


def _warn_of_handler(server: BaseServer) -> None:
    """Warn of a handler that could not work on the standard library's server either.

    Where the program has its own ``finish_request``, only that knows what a handler is; ``None``,
    ``lambda: None`` and a class without any hook are common in tests, where no request comes.
    """
    handler = server.RequestHandlerClass
    if handler is None or type(server).finish_request is not BaseServer.finish_request:
        return
    fault = handler_fault(handler, awaits=server._everserve.strategy.awaits)
    if fault is None:
        is_datagram = getattr(server, "socket_type", None) == socket.SOCK_DGRAM
        fault = transport_fault(handler, datagrams=is_datagram)
    if fault is not None and not fault.endswith((DEFINE_IT, TAKE_THREE)):
        warn(fault)
