"""The limits of a server, shared out among its workers.

A worker cannot see how many connections the others have, so each has its part of a limit. ``Balance``
sees to it that they fill evenly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from everserve.errors import OptionError
from everserve.mixins import DatagramSessionMixIn
from everserve.process.orders import Share
from everserve.process.workforce import MOST_WORKERS

__all__ = ["check_shares", "limits_of", "most_workers", "set_shares", "share_of"]

_WHOLE = ("max_connections", "max_handshakes")
"""Counts that are shared out without a remainder."""

_PER_PEER = "max_connections_per_peer"
"""A count of which each worker has the part rounded up: a peer may have them all at one worker."""

_RATES = ("accept_rate", "accept_rate_per_peer", "accept_burst")

_NAMES = (*_WHOLE, _PER_PEER, *_RATES)

_ONE_FOR_SESSIONS = (
    "a handler with sessions of datagrams needs one, as a peer would have a session in each"
)

Limits = Mapping[str, Any]


def limits_of(server: Any) -> Limits:
    """The limits of the whole server."""
    found = {name: getattr(server, name, None) for name in _NAMES}
    return {name: value for name, value in found.items() if _is_number(value)}


def check_shares(servers: Iterable[Any], workers: int) -> None:
    """Raise ``OptionError`` if the servers do not suit so many workers."""
    most, why = most_workers(servers)
    if workers > most:
        raise OptionError(f"workers = {workers}: {why}")


def most_workers(servers: Iterable[Any]) -> tuple[int, str]:
    """How many workers the servers suit, and what to say of more.

    Each needs a part of each limit. For sessions of datagrams there may be one.
    """
    found = [(MOST_WORKERS, f"there may be {MOST_WORKERS}")]
    for server in servers:
        if isinstance(server, DatagramSessionMixIn):
            found.append((1, _ONE_FOR_SESSIONS))
        for name, value in limits_of(server).items():
            if name in _WHOLE:
                found.append(
                    (value, f"{name} = {value} is shared out, and each needs one at least")
                )
    return min(found, key=lambda one: one[0])


def share_of(name: str, value: Any, share: Share) -> Any:
    """The part of one worker. The parts of all make up the whole, but for a limit of each peer."""
    if name in _WHOLE:
        return max(1, value // share.of + (share.index < value % share.of))
    if name == _PER_PEER:
        return -(-value // share.of)
    part = value / share.of
    return max(1.0, part) if name == "accept_burst" else part


def set_shares(server: Any, limits: Limits, share: Share) -> None:
    """Set the limits of a server in this worker."""
    for name, value in limits.items():
        setattr(server, name, share_of(name, value, share))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and value > 0
