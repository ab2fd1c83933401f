"""The bounds that ``serve``, ``make_server`` and ``everserve run`` set where their caller sets none.

The classes keep the standard library's nature, without bounds. Each value here can be replaced, also by
``None``. The page *Fit for the internet* has them in a table, each with its reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from everserve.server.udp import UDPServer
from everserve.sockets.descriptors import raise_limit

__all__ = [
    "MAX_CONNECTIONS",
    "MAX_DATAGRAMS",
    "REPLY_BUDGET",
    "SHARE",
    "STREAMS",
    "bounds",
    "explain_shortage",
]

MAX_CONNECTIONS = 10_000
"""Connections in progress: with fibers some 70 MB, before what their handlers keep."""

REPLY_BUDGET = 3.0
"""As QUIC has it (RFC 9000, section 8): a sender that forges the address of a victim gains little."""

SHARE = 0.8
"""The part of the descriptors that connections may have; the rest is for files and the program."""

MAX_DATAGRAMS = 10_000
"""Datagrams in progress. Above it the kernel drops what its buffer does not hold."""

STREAMS: Mapping[str, Any] = MappingProxyType(
    {
        "idle_timeout": 75.0,
        "write_timeout": 30.0,
        "max_line": 65_536,
        "max_handshakes": 1_000,
    }
)
"""For all streams. 75 s without a byte is what nginx allows between two requests."""

_OWN = 32
"""Descriptors that the process needs beside its connections: standard ones, listeners, event loop."""

_BY_COUNT = ("fibers", "asyncio", "threads")
_LIMITS_THAT_WAIT = ("max_connections", "max_handshakes", "accept_rate")


def bounds(
    concurrency: str,
    *,
    datagrams: bool,
    chosen: Mapping[str, Any],
    servers: int = 1,
    sessions: bool = False,
) -> dict[str, Any]:
    """The bounds for one of ``servers`` servers with the options ``chosen``, which take precedence.

    Raises the limit of descriptors of the process to the most that it may have.
    """
    if datagrams:
        of_sessions = {"reply_budget": REPLY_BUDGET} if sessions else {}
        return of_sessions | ({} if concurrency == "pool" else {"max_connections": MAX_DATAGRAMS})
    found = dict(STREAMS)
    if concurrency == "pool":  # as many as workers: the others wait in the kernel's queue
        return found
    found["max_connections"] = max(1, min(MAX_CONNECTIONS, int(SHARE * raise_limit() / servers)))
    if concurrency in _BY_COUNT and not any(name in chosen for name in _LIMITS_THAT_WAIT):
        found["overload"] = "reset"
    return found


def explain_shortage(servers: Iterable[Any]) -> str | None:
    """A line, if the connections that ``servers`` admit need more descriptors than there can be.

    Raises the limit of descriptors first. Not for servers without a bound, and not for those whose
    connections are in other processes.
    """
    there = raise_limit()
    bounded = [
        server._everserve.settings.read().max_connections
        for server in servers
        if server._everserve.strategy.is_here and not isinstance(server, UDPServer)
    ]
    needed = sum(number for number in bounded if number is not None) + _OWN
    if needed <= there:
        return None
    return (
        f"max_connections = {needed - _OWN} in all needs {needed} descriptors, and this process may"
        f" have {there}: raise the hard limit (ulimit -Hn, LimitNOFILE=), or lower max_connections"
    )
