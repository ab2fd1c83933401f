"""``serve`` and ``make_server``: a handler, addresses and one word, and it runs.

They choose the ready-made class, set the modern defaults and the options, and bind.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from everserve.addresses import Address
from everserve.combos import CONCURRENCY, server_class
from everserve.errors import AddressError, OptionError
from everserve.options import check
from everserve.process.run import run
from everserve.server.stopping import StopReport
from everserve.server.tcp import TCPServer
from everserve.sockets.inheriting import inherit
from everserve.sockets.listening import has_ipv6

__all__ = ["CONCURRENCY", "DEFAULT_CONCURRENCY", "bind", "make_server", "serve"]

DEFAULT_CONCURRENCY = "fibers"


def serve(
    handler: Callable[..., Any],
    *addresses: str | Address,
    concurrency: str = DEFAULT_CONCURRENCY,
    grace: float = 5.0,
    **settings: Any,
) -> StopReport:
    """Serve with ``handler`` on all ``addresses`` until SIGINT or SIGTERM, then drain.

    ``handler`` is a request handler class; an address is a text such as ``tcp://127.0.0.1:9999``,
    ``tcp://[::1]:0``, ``tcp://*:80``, ``udp://...``, ``unix:/path``, ``unix:@name``,
    ``unixgram:/path`` or ``fd://3``; ``tls://...`` is TCP with TLS, for which ``tls`` is given.
    ``concurrency`` is one of ``fibers``, ``serial``, ``threads``, ``pool`` and ``forks``. After the
    first signal requests in progress have ``grace`` seconds; a second one cuts.

    The other ``settings`` are the options of ``everserve.options``. Addresses are reused on POSIX and
    Nagle's algorithm is off, unless they say otherwise.

    Returns how the stop went. Raises ``AddressError`` and ``OptionError`` for what cannot be read,
    ``OSError`` for what the system refuses.
    """
    if not addresses:
        raise AddressError("no address to serve on: give one such as 'tcp://127.0.0.1:9999'")
    servers = bind(handler, addresses, concurrency=concurrency, **settings)
    try:
        return run(servers, grace=grace)
    finally:
        for server in servers:
            server.server_close()


def bind(
    handler: Callable[..., Any],
    addresses: Iterable[str | Address],
    *,
    concurrency: str = DEFAULT_CONCURRENCY,
    **settings: Any,
) -> list[TCPServer]:
    """A server for each address, all bound, or none. ``tls`` is for those that are ``tls://``.

    Where none is, it is for all of them. Raises as ``serve``.
    """
    places = [Address.parse(address) for address in addresses]
    secure = any(place.scheme == "tls" for place in places)
    servers: list[TCPServer] = []
    try:
        for place in places:
            plain = secure and place.scheme != "tls"
            chosen = {name: v for name, v in settings.items() if not (plain and name == "tls")}
            servers.append(make_server(handler, place, concurrency=concurrency, **chosen))
    except BaseException:
        for server in servers:
            server.server_close()
        raise
    return servers


def make_server(
    handler: Callable[..., Any],
    address: str | Address,
    *,
    concurrency: str = DEFAULT_CONCURRENCY,
    **settings: Any,
) -> TCPServer:
    """A server for ``serve``, bound and listening, that does not serve yet."""
    where = Address.parse(address)
    if where.scheme == "fd":
        inherited = inherit(where.descriptor)
        where = Address.of(inherited)
        configured = _configured(where, concurrency, settings)
        server = configured(where.server_address, handler, bind_and_activate=False)
        server.socket.close()
        server.socket = inherited
        return server
    configured = _configured(where, concurrency, settings)
    return configured(where.server_address, handler)


def _configured(where: Address, concurrency: str, settings: dict[str, Any]) -> type[TCPServer]:
    """The ready-made class, with the modern defaults and the settings as class attributes."""
    base = server_class(concurrency, where.scheme)
    defaults: dict[str, Any] = {}
    if where.scheme in ("tcp", "tls"):
        defaults = {"allow_reuse_address": os.name == "posix", "disable_nagle_algorithm": True}
    if where.host == "" and not where.is_unix:
        defaults["dual_stack"] = has_ipv6()
    chosen = check(settings, base)
    if where.scheme == "tls" and chosen.get("tls") is None:
        raise OptionError(
            f"{where}: needs a certificate: --tls-cert, or in code tls=everserve.TLS(certfile, keyfile)"
        )
    if where.scheme == "tls" and chosen.get("implicit_tls") is False:
        raise OptionError(f"{where}: is TLS from the first byte; where a handler starts it, tcp://")
    if where.scheme in ("udp", "unixgram") and chosen.get("tls") is not None:
        raise OptionError(f"{where}: tls has no meaning for datagrams")
    if chosen.get("proxy_protocol") and not chosen.get("trusted_proxies"):
        raise OptionError("proxy_protocol needs trusted_proxies, the networks of the proxies")
    return type(base.__name__, (base,), defaults | chosen)
