"""The kernel's counters of a TCP connection: when bytes last moved, and how many.

Deadlines read them instead of counting, so that a byte costs nothing more.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

__all__ = ["CLOSE", "CLOSE_WAIT", "ESTABLISHED", "Traffic", "state_of", "traffic_of"]

ESTABLISHED, CLOSE, CLOSE_WAIT = 1, 7, 8  # of <netinet/tcp.h>

# struct tcp_info of <linux/tcp.h>; later fields are newer, and may be missing.
_LAYOUT = struct.Struct("=8B 24I 4Q 3I")
_SIZE = _LAYOUT.size
_TCP_INFO = getattr(socket, "TCP_INFO", None)


class Traffic(NamedTuple):
    """A snapshot of one connection. ``quiet`` is in seconds, the counts in bytes since it was opened.

    ``quiet``: since a byte was last received or sent; ``received``: from the peer; ``delivered``:
    acknowledged by the peer; ``waiting``: true while written bytes are not acknowledged.
    """

    quiet: float
    received: int
    delivered: int
    waiting: bool


def state_of(sock: socket.socket) -> int | None:
    """The state of a TCP connection; ``None`` if the kernel does not report it (not TCP, not Linux)."""
    if _TCP_INFO is None:
        return None
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0]  # the first field
    except OSError:
        return None


def traffic_of(sock: socket.socket) -> Traffic | None:
    """The traffic of ``sock``; ``None`` if the kernel does not report it (not TCP, not Linux)."""
    if _TCP_INFO is None:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _SIZE)
    except OSError:
        return None
    if len(info) < _SIZE:
        return None
    fields = _LAYOUT.unpack(info)
    unacknowledged, last_sent, last_received = fields[12], fields[17], fields[19]
    acknowledged, received, not_sent = fields[34], fields[35], fields[38]
    return Traffic(
        quiet=min(last_sent, last_received) / 1000,
        received=received,
        delivered=acknowledged,
        waiting=bool(unacknowledged or not_sent),
    )
