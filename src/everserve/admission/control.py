"""Admission control: whether the next connection may be accepted, and an accepted one be admitted.

The accept loop calls it with the current settings each time: a change applies to the next connection.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, Protocol, TypeAlias, get_args

from everserve.admission.access import AccessRules
from everserve.admission.limits import PeerCounter, TokenBucket

__all__ = [
    "POLICIES",
    "AdmissionControl",
    "AdmissionLimits",
    "Overload",
    "OverloadPolicy",
    "Policy",
    "duplicate_of",
    "reset",
    "send_and_leave",
]

Policy: TypeAlias = Literal["wait", "refuse", "reset", "shed-idle"]
"""What to do with a connection above a limit."""

POLICIES: tuple[Policy, ...] = get_args(Policy)

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER, on, 0 s: socket(7)


@dataclass(frozen=True, slots=True)
class OverloadPolicy:
    """A custom policy for connections above a limit.

    ``decide(server, request, client_address, reason)`` returns true to admit the request. It runs on
    the accept loop; ``reason`` is the name of the limit.
    """

    decide: Callable[[Any, Any, Any, str], bool]


Overload: TypeAlias = str | OverloadPolicy
"""A ``Policy``, or an ``OverloadPolicy``.

Not ``Policy`` here: of a word that a subclass sets, mypy would infer that no other may follow.
"""


class AdmissionLimits(Protocol):
    """The settings of a server that admission control reads."""

    @property
    def max_connections_per_peer(self) -> int | None: ...
    @property
    def accept_rate(self) -> float | None: ...
    @property
    def accept_burst(self) -> float | None: ...
    @property
    def max_handshakes(self) -> int | None: ...
    @property
    def overload(self) -> Overload: ...
    @property
    def access(self) -> AccessRules | None: ...
    @property
    def handshakes_first(self) -> bool: ...


class AdmissionControl:
    """Counts what is in progress, and reports which limits a new connection violates.

    For the accept loop; ``leave``, the handshakes and ``count_refusal`` may be called from any thread.
    """

    def __init__(self) -> None:
        self._bucket: TokenBucket | None = None
        self._lock = threading.Lock()
        self._max_handshakes: int | None = None
        self.peers = PeerCounter()
        self.handshakes = 0
        self.refusals: Counter[str] = Counter()

    def pause(self, limits: AdmissionLimits) -> float:
        """Seconds for which ``accept_rate`` admits no connection, if the policy is to wait."""
        if limits.accept_rate is None or limits.overload != "wait":
            return 0.0
        return self._rate(limits.accept_rate, limits.accept_burst).wait()

    def has_room(self, limits: AdmissionLimits) -> bool:
        """False if the next connection must wait in the kernel's queue because of a limit."""
        return not (self._has_too_many_handshakes(limits) or self.pause(limits))

    def violations(
        self, limits: AdmissionLimits, address: Any, is_full: Callable[[], bool]
    ) -> list[str]:
        """The names of the limits that the just accepted connection from ``address`` violates."""
        found: list[str] = []
        if limits.access is not None and not limits.access.permits(address):
            return ["access"]
        per_peer = limits.max_connections_per_peer
        if per_peer is not None and self.peers.count(address) >= per_peer:
            found.append("max_connections_per_peer")
        if limits.overload != "wait":
            if is_full():
                found.append("max_connections")
            if self._has_too_many_handshakes(limits):
                found.append("max_handshakes")
        return found

    def takes_token(self, limits: AdmissionLimits) -> bool:
        """True if ``accept_rate`` admits the connection; asked last: a refused one costs no token."""
        rate = limits.accept_rate
        return rate is None or self._rate(rate, limits.accept_burst).take()

    def give_back(self, limits: AdmissionLimits) -> None:
        """Take back the token of a connection that was refused after all."""
        if limits.accept_rate is not None:
            self._rate(limits.accept_rate, limits.accept_burst).give_back()

    def enter(self, limits: AdmissionLimits, connection: Any) -> None:
        """Count an admitted connection for its peer, and count its coming handshake."""
        if limits.max_connections_per_peer is not None:
            connection.counted = connection.peer  # kept: a PROXY header changes `peer`
            self.peers.add(connection.peer)
        if limits.handshakes_first:
            self._max_handshakes = limits.max_handshakes
            self.handshake_started(connection)  # now: the next is admitted before this one runs

    def leave(self, connection: Any) -> None:
        """Stop counting a connection: it has ended."""
        if connection.counted is not None:
            self.peers.remove(connection.counted)
        self.handshake_done(connection)

    def handshake_started(self, connection: Any) -> None:
        """Count a handshake, unless the connection is in a handshake already."""
        with self._lock:
            if not connection.in_handshake:
                connection.in_handshake = True
                self.handshakes += 1

    def handshake_done(self, connection: Any) -> bool:
        """Stop counting the connection's handshake. True if others may have waited for that."""
        if not connection.in_handshake:
            return False
        with self._lock:
            limit = self._max_handshakes
            full = limit is not None and self.handshakes >= limit
            self.handshakes -= connection.in_handshake
            connection.in_handshake = False
        return full

    def handshakes_left(self, limits: AdmissionLimits) -> float:
        """How many more handshakes may begin."""
        limit = limits.max_handshakes
        return inf if limit is None else max(0, limit - self.handshakes)

    def count_refusal(self, reason: str) -> None:
        """Count a refusal."""
        with self._lock:
            self.refusals[reason] += 1

    def _has_too_many_handshakes(self, limits: AdmissionLimits) -> bool:
        limit = limits.max_handshakes
        return limit is not None and self.handshakes >= limit

    def _rate(self, rate: float, burst: float | None) -> TokenBucket:
        bucket = self._bucket
        if bucket is None or (bucket.rate, bucket.asked) != (rate, burst):
            self._bucket = bucket = TokenBucket(rate, burst)
        return bucket


def send_and_leave(request: Any, message: bytes) -> None:
    """Send ``message`` if there is room for it: the server never waits for a refused peer."""
    if message and isinstance(request, socket.socket):
        with suppress(OSError):
            request.setblocking(False)
            request.send(message)


def reset(request: Any) -> None:
    """Make the next close of ``request`` send a reset instead of an orderly end."""
    if isinstance(request, socket.socket):
        with suppress(OSError):
            request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def duplicate_of(request: Any) -> socket.socket | None:
    """A duplicate of the connection's socket, if the system has a descriptor left."""
    if not issubclass(type(request), socket.socket):
        return None
    try:
        duplicate: socket.socket = request.dup()
        return duplicate
    except OSError:
        return None
