"""The door of a server: asked on the accept loop whether the next may come in, and this one stay.

It reads the server's attributes each time, so that a change counts from the next connection.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any, Protocol, TypeAlias

from everserve.admission.access import Access
from everserve.admission.limits import PeerCounter, TokenBucket
from everserve.errors import OptionError
from everserve.reading import option

__all__ = [
    "POLICIES",
    "Door",
    "Doorkeeper",
    "Overload",
    "read_policy",
    "reset",
    "say_and_leave",
    "twin_of",
]

POLICIES = ("wait", "refuse", "reset", "shed-idle")
"""What to do with a connection above a limit."""

Overload: TypeAlias = str | Callable[[Any, Any, Any, str], bool]
"""One of ``POLICIES``, or ``callable(server, request, client_address, reason)``: true lets it in."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER, on, 0 s: socket(7)


class Doorkeeper(Protocol):
    """The attributes of a server that the door reads."""

    max_connections_per_peer: int | None
    accept_rate: float | None
    accept_burst: float | None
    max_handshakes: int | None
    overload: Overload
    access: Access | None
    tls: Any
    implicit_tls: bool

    def _is_full(self) -> bool:
        """True if no more connections may be in progress."""


class Door:
    """Counts who is inside, and says why somebody may not come in.

    For the accept loop; ``leave``, ``greet``, ``greeted`` and ``refuse`` may be called from any thread.
    """

    def __init__(self, keeper: Doorkeeper) -> None:
        self._keeper = keeper
        self._bucket: TokenBucket | None = None
        self._lock = threading.Lock()
        self.peers = PeerCounter()
        self.handshakes = 0
        self.refusals: Counter[str] = Counter()

    def pause(self) -> float:
        """Seconds for which ``accept_rate`` lets nobody in, where the policy is to wait."""
        if self._keeper.accept_rate is None or self._keeper.overload != "wait":
            return 0.0
        bucket = self._rate()
        return 0.0 if bucket is None else bucket.wait()

    def is_open(self) -> bool:
        """False where the next connection is to wait in the kernel's queue."""
        keeper = self._keeper
        if keeper.overload != "wait":
            return True
        return not (keeper._is_full() or self._too_many_handshakes() or self.pause())

    def objections(self, address: Any) -> list[str]:
        """Why the connection from ``address``, accepted just now, should not come in: in words."""
        keeper = self._keeper
        found: list[str] = []
        if keeper.access is not None and not _permits(keeper.access, address):
            return ["access"]
        if keeper.accept_rate is not None and not self._may_pass():
            found.append("accept_rate")
        per_peer = keeper.max_connections_per_peer
        if per_peer is not None and self.peers.count(address) >= option(per_peer, inf):
            found.append("max_connections_per_peer")
        if keeper.overload == "wait":
            return found
        if keeper._is_full():
            found.append("max_connections")
        if self._too_many_handshakes():
            found.append("max_handshakes")
        return found

    def enter(self, connection: Any) -> None:
        """The connection is let in: count it among those of its peer, and its handshake to come."""
        keeper = self._keeper
        per_peer = keeper.max_connections_per_peer
        if per_peer is not None and not callable(per_peer):
            connection.counted = connection.peer  # which a PROXY header will change
            self.peers.add(connection.peer)
        if keeper.tls is not None and option(keeper.tls) and option(keeper.implicit_tls, True):
            self.greet(connection)  # here already: the next is asked for before this one runs

    def leave(self, connection: Any) -> None:
        """The connection has ended."""
        if connection.counted is not None:
            self.peers.remove(connection.counted)
        self.greeted(connection)

    def greet(self, connection: Any) -> None:
        """A handshake begins, unless it has already."""
        with self._lock:
            if not connection.greeting:
                connection.greeting = True
                self.handshakes += 1

    def greeted(self, connection: Any) -> bool:
        """The handshake, if there is one, is over. True if others may have waited for that."""
        if not connection.greeting:
            return False
        with self._lock:
            full = self._too_many_handshakes()
            self.handshakes -= connection.greeting
            connection.greeting = False
        return full

    def handshakes_left(self) -> float:
        """How many handshakes more may begin."""
        limit = self._keeper.max_handshakes
        return inf if limit is None else max(0, option(limit, inf) - self.handshakes)

    def refuse(self, reason: str) -> None:
        """Count a refusal."""
        with self._lock:
            self.refusals[reason] += 1

    def _too_many_handshakes(self) -> bool:
        limit = self._keeper.max_handshakes
        return limit is not None and self.handshakes >= option(limit, inf)

    def _may_pass(self) -> bool:
        bucket = self._rate()
        return bucket is None or bucket.take()

    def _rate(self) -> TokenBucket | None:
        rate, burst = option(self._keeper.accept_rate), option(self._keeper.accept_burst)
        if rate is None:
            return None
        bucket = self._bucket
        if bucket is None or (bucket.rate, bucket.asked) != (rate, burst):
            self._bucket = bucket = TokenBucket(rate, burst)
        return bucket


def _permits(access: Any, address: Any) -> bool:
    rules = option(access)
    return rules is None or Access.parse(rules).permits(address)


def say_and_leave(request: Any, message: bytes) -> None:
    """Send ``message`` if there is room for it: nobody waits for a peer that is turned away."""
    if message and isinstance(request, socket.socket):
        with suppress(OSError):
            request.setblocking(False)
            request.send(message)


def reset(request: Any) -> None:
    """Let the coming close of ``request`` send a reset instead of an orderly end."""
    if isinstance(request, socket.socket):
        with suppress(OSError):
            request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def twin_of(request: Any) -> socket.socket | None:
    """Another object for the same connection, if the system has a descriptor left for it."""
    if not isinstance(request, socket.socket):
        return None
    try:
        return request.dup()
    except OSError:
        return None


def read_policy(value: Any) -> Overload:
    """Check an ``overload``. Raises ``OptionError``."""
    if callable(value) or value in POLICIES:
        policy: Overload = value
        return policy
    raise OptionError(f"overload = {value!r}: there are {', '.join(POLICIES)}, or a callable")
