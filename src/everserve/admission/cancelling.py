"""Whether a handler should go on: asked by one that computes, as ``self.cancelled``."""

from __future__ import annotations

import enum
import socket
from time import monotonic
from typing import Any

from everserve.sockets.hangup import is_hung_up

__all__ = ["Cancelled", "reason_to_stop"]


class Cancelled(enum.Enum):
    """Why a handler should not go on."""

    DRAINING = "the server stops"
    DEADLINE = "a deadline has passed"
    PEER_GONE = "the peer has gone"


def reason_to_stop(server: Any, connection: Any, request: Any) -> Cancelled | None:
    """The first reason there is, ``None`` to go on. A look at the socket is one system call."""
    ask = getattr(server, "_is_draining", None)  # not ``draining``, which may be a program's own
    if ask is not None and ask():
        return Cancelled.DRAINING
    if _is_late(connection):
        return Cancelled.DEADLINE
    if isinstance(request, socket.socket) and is_hung_up(request):
        return Cancelled.PEER_GONE
    return None


def _is_late(connection: Any) -> bool:
    if getattr(connection, "missed", None):
        return True
    ends = getattr(getattr(connection, "pace", None), "ends", None)
    return ends is not None and monotonic() >= ends
