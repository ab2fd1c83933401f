"""``serve`` and ``make_server``: run a handler class on addresses, with a strategy chosen by name.

They choose the ready-made class, set the modern defaults and the options, and bind.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias, TypedDict, Unpack, overload

from everserve.addresses import Address
from everserve.admission.access import AccessRules, Networks
from everserve.admission.context import Step
from everserve.admission.control import OverloadPolicy, Policy
from everserve.combos import CONCURRENCY, server_class
from everserve.defaults import bounds
from everserve.errors import AddressError, HandlerError, OptionError
from everserve.events import Subscriber
from everserve.fibers.engines import explain_slow_engine
from everserve.fibers.log import logger
from everserve.lifecycle.loading import refuse_while_loading
from everserve.mistakes import handler_fault, transport_fault
from everserve.options import check, check_grace
from everserve.process.run import run
from everserve.server.group import ServerGroup
from everserve.server.naming import name_of
from everserve.server.stop import StopReport
from everserve.server.tcp import TCPServer, set_connection_options
from everserve.sockets.inheriting import inherit
from everserve.sockets.listening import has_ipv6, set_options
from everserve.sockets.tls import TLS

__all__ = [
    "CONCURRENCY",
    "DEFAULT_CONCURRENCY",
    "Concurrency",
    "ServerOptions",
    "make_group",
    "make_server",
    "serve",
]

Concurrency: TypeAlias = Literal["fibers", "serial", "threads", "pool", "forks"]
Handler: TypeAlias = Callable[..., Any]

DEFAULT_CONCURRENCY: Concurrency = "fibers"


class ServerOptions(TypedDict, total=False):
    """The options of ``serve`` and ``make_server``; ``everserve.options`` describes each."""

    max_workers: int
    max_connections: int | None
    worker_idle_timeout: float
    max_children: int
    stall_threshold: float | None
    shutdown_grace: float
    coalesce_writes: bool
    daemon_threads: bool
    block_on_close: bool
    request_queue_size: int
    allow_reuse_address: bool
    allow_reuse_port: bool
    dual_stack: bool
    disable_nagle_algorithm: bool
    keep_alive: float | None
    tcp_user_timeout: float | None
    max_packet_size: int
    socket_mode: int | str | None
    max_connections_per_peer: int | None
    accept_rate_per_peer: float | None
    accept_rate: float | None
    accept_burst: float | None
    max_handshakes: int | None
    overload: Policy | OverloadPolicy | Callable[[Any, Any, Any, str], bool]
    overload_message: bytes | str
    access: AccessRules | str | None
    proxy_protocol: bool
    trusted_proxies: Networks | str | Iterable[str]
    proxy_timeout: float
    tls: TLS | ssl.SSLContext | None
    implicit_tls: bool
    tls_reload_interval: float | None
    handshake_timeout: float
    idle_timeout: float | None
    request_timeout: float | None
    write_timeout: float | None
    min_receive_rate: float | None
    max_line: int | None
    admission_steps: Iterable[Step]


@overload
def serve(
    handler: Handler,
    /,
    *addresses: str | Address,
    concurrency: Concurrency = ...,
    grace: float = ...,
    on_ready: Callable[[tuple[TCPServer, ...]], object] = ...,
    subscribe: Subscriber | None = ...,
    **options: Unpack[ServerOptions],
) -> StopReport: ...
@overload
def serve(
    handlers: Mapping[str, Handler],
    /,
    *,
    concurrency: Concurrency = ...,
    grace: float = ...,
    on_ready: Callable[[tuple[TCPServer, ...]], object] = ...,
    subscribe: Subscriber | None = ...,
    **options: Unpack[ServerOptions],
) -> StopReport: ...
def serve(
    handler: Handler | Mapping[str, Handler],
    /,
    *addresses: str | Address,
    concurrency: Concurrency = DEFAULT_CONCURRENCY,
    grace: float = 5.0,
    on_ready: Callable[[tuple[TCPServer, ...]], object] = lambda servers: None,
    subscribe: Subscriber | None = None,
    **options: Unpack[ServerOptions],
) -> StopReport:
    """Serve with ``handler`` on all ``addresses`` until SIGINT or SIGTERM, then drain.

    ``handler`` is a request handler class; an address is a text such as ``tcp://127.0.0.1:9999``,
    ``tcp://[::1]:0``, ``tcp://*:80``, ``udp://...``, ``unix:/path``, ``unix:@name``,
    ``unixgram:/path`` or ``fd://3``. ``tls://...`` is TCP with TLS, and needs the option ``tls``. In
    place of both, ``{address: handler, ...}`` gives each address its own handler. ``concurrency`` is
    one of ``fibers``, ``serial``, ``threads``, ``pool`` and ``forks``. After the first signal, requests
    in progress have ``grace`` seconds to end; a second signal cuts them. One thread serves all
    addresses, with one accept loop.

    ``on_ready(servers)`` is called, in this thread, when all servers accept; what it raises stops them,
    and is raised here. ``subscribe(event)`` is called for each event of each server, as by
    ``Served.subscribe``; ``event.server`` is the name of the server. The logger ``everserve`` gets, at
    level info, where it serves and how it ended.

    ``options`` are those of ``everserve.options``. By default addresses are reused on POSIX, Nagle's
    algorithm is off, and what a server takes is bounded (``everserve.defaults``); ``None`` removes a
    bound.

    Returns the report of the stop, always: a handler that does not end is logged with its stack, and
    the process will end with status 1. Raises ``HandlerError``, ``AddressError`` and ``OptionError``
    for arguments that are not accepted, ``OSError`` for what the system refuses.
    """
    refuse_while_loading("serve()")
    grace = check_grace(grace)
    _check_callable("on_ready", on_ready)
    if subscribe is not None:
        _check_callable("subscribe", subscribe)
    with make_group(handler, *addresses, concurrency=concurrency, **options) as group:
        if subscribe is not None:
            group.subscribe(subscribe)
        return _run(group, grace, on_ready)


def _check_callable(name: str, function: object) -> None:
    if not callable(function):
        raise OptionError(f"{name} = {function!r}: expected a function of one argument")


def _run(
    group: ServerGroup[TCPServer],
    grace: float,
    on_ready: Callable[[tuple[TCPServer, ...]], object],
) -> StopReport:
    """Serve until a signal, with a line in the log for each server and one for the end."""
    notice = explain_slow_engine()
    if notice is not None:
        logger.warning(notice)

    def announce() -> None:
        for server in group.servers:
            logger.info("serving %s", name_of(server))
        on_ready(group.servers)

    try:
        report = run(group, grace=grace, on_ready=announce)
    except BaseException as error:
        logger.info("ended by an error: %r", error)
        raise
    logger.info("ended: %s", report)
    return report


def make_group(
    handler: Handler | Mapping[str, Handler],
    /,
    *addresses: str | Address,
    concurrency: Concurrency = DEFAULT_CONCURRENCY,
    **options: Unpack[ServerOptions],
) -> ServerGroup[TCPServer]:
    """The servers for ``serve``, all bound and listening, or none: a ``ServerGroup``.

    ``tls`` applies to the ``tls://`` addresses, or to all addresses if there are none; ``access``
    applies to those that have networks. Raises as ``serve``.
    """
    places = _places(handler, addresses)
    secure = any(place.scheme == "tls" for place, _ in places)
    has_networks = not all(place.is_unix for place, _ in places)
    servers: list[TCPServer] = []
    try:
        for place, own in places:
            chosen = options.copy()
            if secure and place.scheme != "tls":
                chosen.pop("tls", None)
            if has_networks and place.is_unix and not options.get("proxy_protocol"):
                chosen.pop("access", None)
            servers.append(_make(own, place, concurrency, chosen, servers=len(places)))
    except BaseException:
        ServerGroup(servers).server_close()
        raise
    return ServerGroup(servers)


def _places(
    handler: Handler | Mapping[str, Handler], addresses: tuple[str | Address, ...]
) -> list[tuple[Address, Handler]]:
    if isinstance(handler, Mapping):
        if addresses:
            raise AddressError(
                f"{{address: handler}} has the addresses: {addresses!r} are too many"
            )
        places = [(Address.parse(address), own) for address, own in handler.items()]
    else:
        _check_handler(handler)
        places = [(Address.parse(address), handler) for address in addresses]
    if not places:
        raise AddressError("no address to serve on: give one such as 'tcp://127.0.0.1:9999'")
    return places


def make_server(
    handler: Handler,
    address: str | Address,
    *,
    concurrency: Concurrency = DEFAULT_CONCURRENCY,
    **options: Unpack[ServerOptions],
) -> TCPServer:
    """A server as ``serve`` makes it: bound and listening, but not serving yet. Raises as ``serve``."""
    return _make(handler, address, concurrency, options, servers=1)


def _make(
    handler: Handler,
    address: str | Address,
    concurrency: Concurrency,
    options: ServerOptions,
    *,
    servers: int,
) -> TCPServer:
    """One of ``servers`` servers, which share the descriptors of the process."""
    _check_handler(handler)
    where = Address.parse(address)
    if where.scheme == "fd":
        inherited = inherit(where.descriptor)
        where = Address.of(inherited)
        try:
            configured = _configured(where, concurrency, options, servers)
            _check_transport(handler, where)
            server = configured(where.server_address, handler, bind_and_activate=False)
        except BaseException:
            inherited.detach()  # it stays the caller's
            raise
        _take_over(server, inherited, options, where)
        return server
    configured = _configured(where, concurrency, options, servers)
    _check_transport(handler, where)
    return configured(where.server_address, handler)


def _take_over(
    server: TCPServer, inherited: socket.socket, options: ServerOptions, address: Address
) -> None:
    """Serve on a socket that is bound already, with the options of a listener that can still be set.

    The backlog and the reuse of the address are those of the process that opened it, unless asked for.
    """
    server.socket.close()
    server.socket = inherited
    server.address_family, server.socket_type = inherited.family, inherited.type
    server.server_address = inherited.getsockname()
    try:
        _refuse_bound(inherited, options, address)
        set_options(
            inherited,
            reuse_address="allow_reuse_address" in options and server.allow_reuse_address,
            reuse_port="allow_reuse_port" in options and server.allow_reuse_port,
        )
        set_connection_options(server)
        if "request_queue_size" in options and inherited.type != socket.SOCK_DGRAM:
            inherited.listen(server.request_queue_size)
    except BaseException:
        server.socket.detach()  # it is the caller's again
        raise


def _refuse_bound(inherited: socket.socket, options: ServerOptions, address: Address) -> None:
    """Raise ``OptionError`` for what must be set before a socket is bound."""
    if options.get("socket_mode") is not None:
        raise OptionError(
            f"{address}: is bound already: set the mode of its file where it is opened"
        )
    both = options.get("dual_stack")
    if both is None or inherited.family != socket.AF_INET6:
        return
    if bool(inherited.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)) is bool(both):
        raise OptionError(
            f"{address}: is bound already, with dual_stack={not both}: "
            "set IPV6_V6ONLY where it is opened"
        )


def _check_handler(handler: Any) -> None:
    """Raise ``HandlerError`` for what can handle no request."""
    fault = handler_fault(handler)
    if fault is not None:
        raise HandlerError(fault)


def _check_transport(handler: Any, where: Address) -> None:
    """Raise ``HandlerError`` for a handler of streams where datagrams come, and the reverse."""
    fault = transport_fault(handler, datagrams=where.scheme in ("udp", "unixgram"))
    if fault is not None:
        raise HandlerError(f"{where}: {fault}")


def _configured(
    where: Address, concurrency: str, options: ServerOptions, servers: int
) -> type[TCPServer]:
    """The ready-made class, with the modern defaults and the options as class attributes."""
    base = server_class(concurrency, where.scheme)
    defaults: dict[str, Any] = {}
    if where.scheme in ("tcp", "tls"):
        defaults = {"allow_reuse_address": os.name == "posix", "disable_nagle_algorithm": True}
    if where.host == "" and not where.is_unix:
        defaults["dual_stack"] = has_ipv6()
    chosen = check(options, base)
    has_datagrams = where.scheme in ("udp", "unixgram")
    defaults |= bounds(concurrency, datagrams=has_datagrams, chosen=chosen, servers=servers)
    _check_together(where, chosen)
    return type(base.__name__, (base,), defaults | chosen)


def _check_together(where: Address, chosen: Mapping[str, Any]) -> None:
    """Raise ``OptionError`` for options that contradict each other."""
    if where.scheme == "tls" and chosen.get("tls") is None:
        raise OptionError(
            f"{where}: needs a certificate: --tls-cert, or in code tls=everserve.TLS(certfile, keyfile)"
        )
    if where.scheme == "tls" and chosen.get("implicit_tls") is False:
        raise OptionError(f"{where}: is TLS from the first byte; where a handler starts it, tcp://")
    if where.scheme in ("udp", "unixgram") and chosen.get("tls") is not None:
        raise OptionError(f"{where}: tls has no meaning for datagrams")
    if where.is_unix and chosen.get("access") is not None and not chosen.get("proxy_protocol"):
        raise OptionError(
            f"{where}: access is about networks, and a Unix socket has none: its socket_mode says who"
            " may connect"
        )
    if chosen.get("proxy_protocol") and not chosen.get("trusted_proxies"):
        raise OptionError("proxy_protocol needs trusted_proxies, the networks of the proxies")
