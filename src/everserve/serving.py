"""``serve`` and ``make_server``: run a handler class on addresses, with a strategy chosen by name.

They choose the ready-made class, set the modern defaults and the options, and bind.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Any, Literal, TypeAlias, TypedDict, Unpack, overload

from everserve.addresses import Address
from everserve.admission.access import AccessRules, Networks
from everserve.admission.context import Step
from everserve.admission.control import OverloadPolicy, Policy
from everserve.combos import CONCURRENCY, server_class
from everserve.defaults import bounds, explain_shortage
from everserve.errors import AddressError, HandlerError, OptionError
from everserve.events import Subscriber
from everserve.executors.checking import handler_fault_with
from everserve.fibers.engines import DatagramSocket, explain_slow_engine
from everserve.fibers.log import logger
from everserve.handlers.session import DatagramSessionHandler
from everserve.lifecycle.loading import refuse_while_loading
from everserve.mistakes import handler_fault, transport_fault
from everserve.options import check, check_grace
from everserve.process.run import run
from everserve.process.supervisor import Supervisor
from everserve.process.workforce import Workers, Workforce, make_workforce
from everserve.server.group import ServerGroup
from everserve.server.naming import name_of
from everserve.server.stop import StopReport
from everserve.server.tcp import TCPServer, set_connection_options
from everserve.server.udp import UDPServer
from everserve.settings import LoopFactory
from everserve.sockets.activation import passed
from everserve.sockets.bindable import check_bindable
from everserve.sockets.genuine import is_patched
from everserve.sockets.inheriting import inherit
from everserve.sockets.listening import has_ipv6, set_options
from everserve.sockets.tls import TLS

__all__ = [
    "CONCURRENCY",
    "DEFAULT_CONCURRENCY",
    "Concurrency",
    "ServerOptions",
    "bind_group",
    "check_group",
    "located",
    "make_group",
    "make_server",
    "serve",
]

Concurrency: TypeAlias = Literal["fibers", "asyncio", "serial", "threads", "pool", "forks"]
Handler: TypeAlias = Callable[..., Any]

DEFAULT_CONCURRENCY: Concurrency = "fibers"


class ServerOptions(TypedDict, total=False):
    """The options of ``serve`` and ``make_server``; ``everserve.options`` describes each."""

    max_workers: int
    max_connections: int | None
    worker_idle_timeout: float
    executor: Executor | str | None
    ordered_peers: bool
    peer_queue: int
    peer_queue_drops: Literal["newest", "oldest"]
    reply_budget: float | None
    max_children: int
    stall_threshold: float | None
    shutdown_grace: float
    loop_factory: LoopFactory | Callable[[], Any] | None
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
    receive_buffer: int | None
    broadcast: bool
    multicast_interface: str | None
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
    workers: Workers | None = ...,
    worker_timeout: float | None = ...,
    max_requests: int | None = ...,
    max_memory: int | None = ...,
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
    workers: Workers | None = ...,
    worker_timeout: float | None = ...,
    max_requests: int | None = ...,
    max_memory: int | None = ...,
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
    workers: Workers | None = None,
    worker_timeout: float | None = 30.0,
    max_requests: int | None = None,
    max_memory: int | None = None,
    **options: Unpack[ServerOptions],
) -> StopReport:
    """Serve with ``handler`` on all ``addresses`` until SIGINT or SIGTERM, then drain.

    ``handler`` is a request handler class; an address is a text such as ``tcp://127.0.0.1:9999``,
    ``tcp://[::1]:0``, ``tcp://*:80``, ``udp://...``, ``unix:/path``, ``unix:@name``,
    ``unixgram:/path``, ``fd://3`` or ``systemd:name``, which is every socket that the service manager
    has passed under that name. ``tls://...`` is TCP with TLS, and needs the option ``tls``. In place of
    both, ``{address: handler, ...}`` gives each address its own handler. ``concurrency`` is one of
    ``fibers``, ``asyncio``, ``serial``, ``threads``, ``pool`` and ``forks``. After the first signal,
    requests in progress have ``grace`` seconds to end; a second signal cuts them. One thread serves all
    addresses, with one accept loop.

    ``on_ready(servers)`` is called, in this thread, when all servers accept; what it raises stops them,
    and is raised here. ``subscribe(event)`` is called for each event of each server, as by
    ``Served.subscribe``; ``event.server`` is the name of the server. The logger ``everserve`` gets, at
    level info, where it serves and how it ended.

    With ``workers`` (a number, or ``"auto"`` for one a core) that many processes serve, and this one
    supervises them; needs Linux. Limits are shared out among them, and what ``on_ready`` gets stands
    for all of them. A worker is replaced if it ends, if its accept loop stands for ``worker_timeout``
    seconds, after ``max_requests``, and above ``max_memory`` bytes; ``None`` is no limit.

    ``options`` are those of ``everserve.options``. By default addresses are reused on POSIX, Nagle's
    algorithm is off, and what a server takes is bounded (``everserve.defaults``); ``None`` removes a
    bound.

    Returns the report of the stop, always: a handler that does not end is logged with its stack, and
    the process will end with status 1. Raises ``HandlerError``, ``AddressError`` and ``OptionError``
    for arguments that are not accepted, ``OSError`` for what the system refuses, ``WorkerError`` where
    no worker can start.
    """
    refuse_while_loading("serve()")
    grace = check_grace(grace)
    workforce = make_workforce(workers, worker_timeout, max_requests, max_memory)
    if workforce is not None and isinstance(options.get("executor"), Executor):
        raise OptionError(
            "executor: an object is of one process, and workers are others: give a text, such as"
            " 'processes:4', which each of them makes for itself"
        )
    _check_callable("on_ready", on_ready)
    if subscribe is not None:
        _check_callable("subscribe", subscribe)
    with make_group(handler, *addresses, concurrency=concurrency, **options) as group:
        if subscribe is not None and workforce is None:
            group.subscribe(subscribe)
        return _run(group, grace, on_ready, workforce, subscribe)


def _check_callable(name: str, function: object) -> None:
    if not callable(function):
        raise OptionError(f"{name} = {function!r}: expected a function of one argument")


def _run(
    group: ServerGroup[TCPServer],
    grace: float,
    on_ready: Callable[[tuple[TCPServer, ...]], object],
    workforce: Workforce | None,
    subscribe: Subscriber | None,
) -> StopReport:
    """Serve until a signal, with a line in the log for each server and one for the end."""
    for notice in (explain_slow_engine(), explain_shortage(group.servers)):
        if notice is not None:
            logger.warning(notice)

    def announce() -> None:
        for server in group.servers:
            logger.info("serving %s", name_of(server))
        on_ready(group.servers)

    try:
        if workforce is None:
            report = run(group, grace=grace, on_ready=announce)
        else:
            report = _supervise(group, workforce, grace, announce, subscribe)
    except BaseException as error:
        logger.info("ended by an error: %r", error)
        raise
    logger.info("ended: %s", report)
    return report


def _supervise(
    group: ServerGroup[TCPServer],
    workforce: Workforce,
    grace: float,
    announce: Callable[[], object],
    subscribe: Subscriber | None,
) -> StopReport:
    """Serve by workers, which have the code of this process."""
    supervisor = Supervisor(
        group, workforce, grace=grace, prepare=ServerGroup.reload_tls, on_ready=announce
    )
    if subscribe is not None:
        for server in supervisor.whole.servers:
            server.subscribe(subscribe)
    return supervisor.run()


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
    return bind_group(handler, addresses, concurrency, options, lambda place: None)


def bind_group(
    handler: Handler | Mapping[str, Handler],
    addresses: tuple[str | Address, ...],
    concurrency: Concurrency,
    options: ServerOptions,
    find: Callable[[Address], socket.socket | None],
) -> ServerGroup[TCPServer]:
    """As ``make_group``, over those listeners that ``find(address)`` has already. It owns them."""
    places = [
        (place, own)
        for address, own in _places(handler, addresses, concurrency)
        for place in located(address)
    ]
    count = len(places)
    servers: list[TCPServer] = []
    try:
        for (place, own), chosen in zip(places, _own_options(places, options), strict=True):
            found = find(place)
            servers.append(_make(own, place, concurrency, chosen, servers=count, found=found))
    except BaseException:
        ServerGroup(servers).server_close()
        raise
    return ServerGroup(servers)


def check_group(
    handler: Handler | Mapping[str, Handler],
    /,
    *addresses: str | Address,
    concurrency: Concurrency = DEFAULT_CONCURRENCY,
    **options: Unpack[ServerOptions],
) -> None:
    """Raise as ``make_group`` would where it would, as far as that is known; bind nothing.

    Not for an address in use: a server that is to be replaced may listen there. Of sockets that another
    process opens (``fd://``, ``systemd:``) only the handler is checked.
    """
    places = _places(handler, addresses, concurrency)
    for (place, own), chosen in zip(places, _own_options(places, options), strict=True):
        _check_handler(own, awaits=concurrency == "asyncio")
        if place.scheme not in ("fd", "systemd"):
            _configured(own, place, concurrency, chosen, len(places), joins=False)
            _check_transport(own, place)
            check_bindable(place)


def _own_options(
    places: list[tuple[Address, Handler]], options: ServerOptions
) -> Iterator[ServerOptions]:
    """The options of each place: ``tls`` and ``access`` are for some of several."""
    secure = any(place.scheme == "tls" for place, _ in places)
    has_networks = not all(place.is_unix for place, _ in places)
    for place, _ in places:
        chosen = options.copy()
        if secure and place.scheme != "tls":
            chosen.pop("tls", None)
        if has_networks and place.is_unix and not options.get("proxy_protocol"):
            chosen.pop("access", None)
        yield chosen


def _places(
    handler: Handler | Mapping[str, Handler],
    addresses: tuple[str | Address, ...],
    concurrency: str,
) -> list[tuple[Address, Handler]]:
    if isinstance(handler, Mapping):
        if addresses:
            raise AddressError(
                f"{{address: handler}} has the addresses: {addresses!r} are too many"
            )
        places = [(Address.parse(address), own) for address, own in handler.items()]
    else:
        _check_handler(handler, awaits=concurrency == "asyncio")
        places = [(Address.parse(address), handler) for address in addresses]
    if not places:
        raise AddressError("no address to serve on: give one such as 'tcp://127.0.0.1:9999'")
    return places


def located(address: Address) -> list[Address]:
    """The address, or each of the sockets that the service manager has passed under its name."""
    if address.scheme != "systemd":
        return [address]
    return [Address("fd", descriptor=number) for number in passed(address.name)]


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
    found: socket.socket | None = None,
) -> TCPServer:
    """One of ``servers`` servers, which share the descriptors of the process.

    ``found``: its listener, bound by another process with the same options.
    """
    _check_handler(handler, awaits=concurrency == "asyncio")
    where, *others = located(Address.parse(address))
    if others:
        raise AddressError(
            f"{address}: is {1 + len(others)} sockets: one server has one, so make a group"
        )
    if found is not None:
        where = Address.of(found) if where.scheme == "fd" else where
        server = _unbound(handler, where, concurrency, options, servers)
        _replace_socket(server, found)
        return server
    if where.scheme == "fd":
        return _make_on_inherited(handler, where.descriptor, concurrency, options, servers)
    configured = _configured(handler, where, concurrency, options, servers)
    _check_transport(handler, where)
    return configured(where.server_address, handler)


def _make_on_inherited(
    handler: Handler,
    descriptor: int,
    concurrency: Concurrency,
    options: ServerOptions,
    servers: int,
) -> TCPServer:
    inherited = _in_batches(inherit(descriptor))
    where = Address.of(inherited)
    try:
        server = _unbound(handler, where, concurrency, options, servers)
    except BaseException:
        inherited.detach()  # it stays the caller's
        raise
    _take_over(server, inherited, options, where)
    return server


def _unbound(
    handler: Handler,
    where: Address,
    concurrency: Concurrency,
    options: ServerOptions,
    servers: int,
) -> TCPServer:
    """A server that is to get a socket which is bound already."""
    configured = _configured(handler, where, concurrency, options, servers, joins=False)
    _check_transport(handler, where)
    return configured(where.server_address, handler, bind_and_activate=False)


def _in_batches(inherited: socket.socket) -> socket.socket:
    """The same socket; one of datagrams as the servers of everserve have it."""
    if inherited.type != socket.SOCK_DGRAM or is_patched():
        return inherited
    sock = DatagramSocket(fileno=inherited.detach())
    sock.prepare()
    return sock


def _take_over(
    server: TCPServer, inherited: socket.socket, options: ServerOptions, address: Address
) -> None:
    """Serve on a socket that is bound already, with the options of a listener that can still be set.

    The backlog and the reuse of the address are those of the process that opened it, unless asked for.
    """
    _replace_socket(server, inherited)
    try:
        _refuse_bound(inherited, options, address)
        set_options(
            inherited,
            reuse_address="allow_reuse_address" in options and server.allow_reuse_address,
            reuse_port="allow_reuse_port" in options and server.allow_reuse_port,
        )
        set_connection_options(server)
        if isinstance(server, UDPServer):
            server.server_activate()
        elif "request_queue_size" in options:
            inherited.listen(server.request_queue_size)
    except BaseException:
        server.socket.detach()  # it is the caller's again
        raise


def _replace_socket(server: TCPServer, sock: socket.socket) -> None:
    server.socket.close()
    server.socket = sock
    server.address_family, server.socket_type = sock.family, sock.type
    server.server_address = sock.getsockname()


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


def _check_handler(handler: Any, *, awaits: bool) -> None:
    """Raise ``HandlerError`` for what can handle no request; ``awaits``: coroutines can."""
    fault = handler_fault(handler, awaits=awaits)
    if fault is not None:
        raise HandlerError(fault)


def _check_transport(handler: Any, where: Address) -> None:
    """Raise ``HandlerError`` for a handler of streams where datagrams come, and the reverse."""
    fault = transport_fault(handler, datagrams=where.scheme in ("udp", "unixgram"))
    if fault is not None:
        raise HandlerError(f"{where}: {fault}")


def _configured(
    handler: Handler,
    where: Address,
    concurrency: str,
    options: ServerOptions,
    servers: int,
    *,
    joins: bool = True,
) -> Callable[..., TCPServer]:
    """What makes a server of the ready-made class, with the modern defaults and the options.

    ``joins``: it becomes a member of a multicast group; a socket that is inherited may be one already.
    """
    has_datagrams = where.scheme in ("udp", "unixgram")
    sessions = has_datagrams and _wants_session(handler)
    base = server_class(concurrency, where.scheme, sessions=sessions)
    defaults: dict[str, Any] = {}
    if where.scheme in ("tcp", "tls"):
        defaults = {"allow_reuse_address": os.name == "posix", "disable_nagle_algorithm": True}
    if where.host == "" and not where.is_unix:
        defaults["dual_stack"] = has_ipv6()
    if where.is_group and joins:
        defaults |= {"allow_reuse_address": True, "multicast_interface": where.interface}
    chosen = check(options, base)
    defaults |= bounds(
        concurrency, datagrams=has_datagrams, chosen=chosen, servers=servers, sessions=sessions
    )
    _check_together(where, chosen)
    _check_executor(handler, chosen.get("executor"))
    return partial(_with_options, base, defaults | chosen)


def _with_options(
    kind: type[TCPServer], options: Mapping[str, Any], *arguments: Any, **keywords: Any
) -> TCPServer:
    """Make a server that has its options as attributes before its constructor reads them.

    Not as those of a class for it alone: only the collector could free that, and a ``tls`` with it.
    """
    server = kind.__new__(kind)
    vars(server).update(options)
    kind.__init__(server, *arguments, **keywords)
    return server


def _check_executor(handler: Handler, executor: Any) -> None:
    """Raise ``OptionError`` for a handler whose messages cannot be handled there."""
    fault = None if executor is None else handler_fault_with(executor, handler)
    if fault is not None:
        raise OptionError(fault)


def _wants_session(handler: Handler) -> bool:
    return isinstance(handler, type) and issubclass(handler, DatagramSessionHandler)


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
    if chosen.get("multicast_interface") is not None and not where.is_group:
        raise OptionError(f"{where}: is no multicast group: multicast_interface has no meaning")
    if where.is_unix and chosen.get("access") is not None and not chosen.get("proxy_protocol"):
        raise OptionError(
            f"{where}: access is about networks, and a Unix socket has none: its socket_mode says who"
            " may connect"
        )
    if chosen.get("proxy_protocol") and not chosen.get("trusted_proxies"):
        raise OptionError("proxy_protocol needs trusted_proxies, the networks of the proxies")
