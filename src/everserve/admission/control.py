"""Admission control: whether the next connection may be accepted, and an accepted one be admitted.

The accept loop calls it with the current settings each time: a change applies to the next connection.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, get_args

from everserve.admission.access import AccessRules, Networks
from everserve.admission.crowd import Crowd
from everserve.admission.proxies import is_trusted_proxy
from everserve.fibers import engines
from everserve.sockets.genuine import is_socket

if TYPE_CHECKING:
    from everserve.admission.limits import PeerCounter, PeerRates, TokenBucket
else:
    _limits = engines.part("limits", "admission")
    PeerCounter, PeerRates, TokenBucket = (
        _limits.PeerCounter,
        _limits.PeerRates,
        _limits.TokenBucket,
    )

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

LONGEST_AWAITED = 1.0
"""Seconds that a handshake may take while connections wait for its place; then it makes room."""

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
    def accept_rate_per_peer(self) -> float | None: ...
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
    @property
    def header_first(self) -> bool: ...
    @property
    def trusted_proxies(self) -> Networks: ...


class AdmissionControl:
    """Counts what is in progress, and reports which limits a new connection violates.

    For the accept loop; ``leave``, the handshakes and ``count_refusal`` may be called from any thread.
    """

    def __init__(self) -> None:
        self._bucket: TokenBucket | None = None
        self._peer_rates: PeerRates | None = None
        self._lock = threading.Lock()
        self._max_handshakes: int | None = None
        self.peers = PeerCounter()
        self.crowd = Crowd()
        self.handshaking = Crowd()
        self._began: dict[Any, float] = {}  # when each of these began
        self.handshakes = 0
        self.refusals: Counter[str] = Counter()

    def pause(self, limits: AdmissionLimits) -> float:
        """Seconds for which ``accept_rate`` admits no connection, if the policy is to wait."""
        if limits.accept_rate is None or limits.overload != "wait":
            return 0.0
        return self._rate(limits.accept_rate, limits.accept_burst).wait()

    def has_room(self, limits: AdmissionLimits) -> bool:
        """False if the next connection must wait in the kernel's queue because of a limit."""
        return not (self.has_too_many_handshakes(limits) or self.pause(limits))

    def has_too_many_handshakes(self, limits: AdmissionLimits) -> bool:
        """True if no further handshake may begin."""
        limit = limits.max_handshakes
        return limit is not None and self.handshakes >= limit

    def violations(
        self, limits: AdmissionLimits, request: Any, address: Any, is_full: Callable[[], bool]
    ) -> list[str]:
        """The names of the limits that the just accepted connection from ``address`` violates.

        Where a proxy's header comes first, the limits for peers wait for the client's address.
        """
        found: list[str] = []
        if limits.header_first:
            if not is_trusted_proxy(request, address, limits.trusted_proxies):
                return ["untrusted_proxy"]
        elif limits.access is not None and not limits.access.permits(address):
            return ["access"]
        elif self._has_too_many(limits, address):
            found.append("max_connections_per_peer")
        if limits.overload != "wait":
            if is_full():
                found.append("max_connections")
            if self.has_too_many_handshakes(limits):
                found.append("max_handshakes")
        return found

    def takes_token(self, limits: AdmissionLimits) -> bool:
        """True if ``accept_rate`` admits the connection; asked last: a refused one costs no token."""
        bucket = self.bucket(limits)
        return bucket is None or bucket.take()

    def bucket(self, limits: AdmissionLimits) -> TokenBucket | None:
        """What admits connections at ``accept_rate``; ``None``: there is no such limit."""
        rate = limits.accept_rate
        return None if rate is None else self._rate(rate, limits.accept_burst)

    def takes_peer_token(self, limits: AdmissionLimits, address: Any) -> bool:
        """True if ``accept_rate_per_peer`` admits the connection."""
        rate = limits.accept_rate_per_peer
        return rate is None or self._rates(rate).take(address)

    def give_back(self, limits: AdmissionLimits, address: Any, *, peer_only: bool = False) -> None:
        """Take back the tokens of a connection that was refused after all."""
        if limits.accept_rate_per_peer is not None and not limits.header_first:
            self._rates(limits.accept_rate_per_peer).give_back(address)
        if self._bucket is not None and not peer_only:
            self._bucket.give_back()

    def client_violation(
        self, limits: AdmissionLimits, connection: Any, address: Any, waived: Collection[str] = ()
    ) -> str | None:
        """The limit that the client at ``address``, behind a proxy, violates; else it is counted.

        A policy has ``waived`` some. For any thread: it is asked where the proxy's header is read.
        """
        if limits.access is not None and not limits.access.permits(address):
            return "access"
        most: float | None = limits.max_connections_per_peer
        if most is not None and connection is not None and connection.counted is None:
            if not self.peers.add(address, inf if "max_connections_per_peer" in waived else most):
                return "max_connections_per_peer"
            connection.counted = address
        if limits.overload == "shed-idle" and connection is not None:
            connection.in_crowd = True
            self.crowd.add(connection, address)
        if "accept_rate_per_peer" in waived or self.takes_peer_token(limits, address):
            return None
        return "accept_rate_per_peer"

    def count_client(self, limits: AdmissionLimits, connection: Any, address: Any) -> None:
        """Count a client behind a proxy, which another process has admitted."""
        if limits.max_connections_per_peer is not None and connection.counted is None:
            connection.counted = address
            self.peers.add(address)
        self.takes_peer_token(limits, address)

    def enter(self, limits: AdmissionLimits, connection: Any) -> None:
        """Count an admitted connection for its peer, and count its coming handshake."""
        if limits.max_connections_per_peer is not None and not limits.header_first:
            connection.counted = connection.peer
            self.peers.add(connection.peer)
        if limits.overload == "shed-idle" and not limits.header_first:
            connection.in_crowd = True
            self.crowd.add(connection, connection.peer)
        if limits.handshakes_first:
            self._max_handshakes = limits.max_handshakes
            self.handshake_started(connection)  # now: the next is admitted before this one runs

    def enter_again(self, limits: AdmissionLimits, connection: Any) -> None:
        """Count a connection that another process has admitted; it costs no token of a rate."""
        if limits.max_connections_per_peer is not None:
            connection.counted = connection.peer
            self.peers.add(connection.peer)
        if limits.overload == "shed-idle":
            connection.in_crowd = True
            self.crowd.add(connection, connection.peer)

    def leave(self, connection: Any) -> None:
        """Stop counting a connection: it has ended."""
        if connection.counted is not None:
            self.peers.remove(connection.counted)
        self.crowd.remove(connection)
        self.handshake_done(connection)

    def handshake_started(self, connection: Any) -> None:
        """Count a handshake, unless the connection is in a handshake already."""
        with self._lock:
            if not connection.in_handshake:
                connection.in_handshake = True
                self.handshakes += 1
                self._began[connection] = monotonic()
                self.handshaking.add(connection, connection.peer)

    def handshake_done(self, connection: Any) -> bool:
        """Stop counting the connection's handshake. True if others may have waited for that."""
        if not connection.in_handshake:
            return False
        with self._lock:
            limit = self._max_handshakes
            full = limit is not None and self.handshakes >= limit
            self.handshakes -= connection.in_handshake
            connection.in_handshake = False
            self._began.pop(connection, None)
            self.handshaking.remove(connection)
        return full

    def slowest_handshake(self) -> tuple[Any, float] | None:
        """The oldest handshake of the peer that has the most, and the seconds until it is too slow."""
        for connection in self.handshaking.candidates(None, 1):
            began = self._began.get(connection)
            if began is not None:
                return connection, max(0.0, began + LONGEST_AWAITED - monotonic())
        return None

    def handshakes_left(self, limits: AdmissionLimits) -> float:
        """How many more handshakes may begin."""
        limit = limits.max_handshakes
        return inf if limit is None else max(0, limit - self.handshakes)

    def count_refusal(self, reason: str, count: int = 1) -> None:
        """Count a refusal, or ``count`` of them."""
        with self._lock:
            self.refusals[reason] += count

    def _has_too_many(self, limits: AdmissionLimits, address: Any) -> bool:
        most = limits.max_connections_per_peer
        return most is not None and self.peers.count(address) >= most

    def _rates(self, rate: float) -> PeerRates:
        rates = self._peer_rates
        if rates is None or rates.rate != rate:
            self._peer_rates = rates = PeerRates(rate)
        return rates

    def _rate(self, rate: float, burst: float | None) -> TokenBucket:
        bucket = self._bucket
        if bucket is None or (bucket.rate, bucket.asked) != (rate, burst):
            self._bucket = bucket = TokenBucket(rate, burst)
        return bucket


def send_and_leave(request: Any, message: bytes) -> None:
    """Send ``message`` if there is room for it: the server never waits for a refused peer."""
    if message and is_socket(request):
        with suppress(OSError):
            request.setblocking(False)
            request.send(message)


def reset(request: Any) -> None:
    """Make the next close of ``request`` send a reset instead of an orderly end."""
    if is_socket(request):
        with suppress(OSError):
            request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def duplicate_of(request: Any) -> socket.socket | None:
    """A duplicate of the connection's socket, if the system has a descriptor left."""
    if not is_socket(request):
        return None
    try:
        duplicate: socket.socket = request.dup()
        return duplicate
    except OSError:
        return None
