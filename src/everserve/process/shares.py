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

__all__ = ["check_shares", "limits_of", "set_shares", "share_of"]

_WHOLE = ("max_connections", "max_handshakes")
"""Counts that are shared out without a remainder."""

_PER_PEER = "max_connections_per_peer"
"""A count of which each worker has the part rounded up: a peer may have them all at one worker."""

_RATES = ("accept_rate", "accept_rate_per_peer", "accept_burst")

_NAMES = (*_WHOLE, _PER_PEER, *_RATES)

Limits = Mapping[str, Any]


def limits_of(server: Any) -> Limits:
    """The limits of the whole server."""
    found = {name: getattr(server, name, None) for name in _NAMES}
    return {name: value for name, value in found.items() if _is_number(value)}


def check_shares(servers: Iterable[Any], workers: int) -> None:
    """Raise ``OptionError`` for a limit that is too small for each worker to have a part of it.

    Also for sessions of datagrams: any worker receives what a peer sends.
    """
    for server in servers:
        if workers > 1 and isinstance(server, DatagramSessionMixIn):
            raise OptionError(
                f"workers = {workers}: a handler with sessions of datagrams needs one, as a peer would"
                " have a session in each"
            )
        for name, value in limits_of(server).items():
            if name in _WHOLE and value < workers:
                raise OptionError(
                    f"{name} = {value} is shared out among {workers} workers: each needs one at least"
                )


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
