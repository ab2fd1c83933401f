"""Whether a handler should go on: a long computation checks ``self.cancelled``."""

from __future__ import annotations

import enum
from time import monotonic
from typing import Any

from everserve.sockets.genuine import is_socket
from everserve.sockets.hangup import is_hung_up

__all__ = ["CancelReason", "reason_to_stop"]


class CancelReason(enum.Enum):
    """Why a handler should not go on."""

    DRAINING = "the server stops"
    DEADLINE = "a deadline has passed"
    PEER_GONE = "the peer has gone"


def reason_to_stop(draining: bool, connection: Any, request: Any) -> CancelReason | None:
    """The first reason that applies, or ``None`` to go on. Costs one system call on the socket."""
    if draining:
        return CancelReason.DRAINING
    if _is_late(connection):
        return CancelReason.DEADLINE
    if is_socket(request) and is_hung_up(request):
        return CancelReason.PEER_GONE
    return None


def _is_late(connection: Any) -> bool:
    if getattr(connection, "missed", None):
        return True
    ends = getattr(getattr(connection, "deadlines", None), "ends", None)
    return ends is not None and monotonic() >= ends
