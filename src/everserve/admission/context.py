"""The context of one request on its way to its handler: what the steps of admission read and change.

``Flow.finish`` makes one for each request of a server that has steps to take, and calls ``leave`` at
the end.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Collection, Iterable
from time import monotonic
from typing import Any, Protocol, TypeAlias

from everserve.admission.control import AdmissionLimits, OverloadPolicy
from everserve.admission.deadlines import StageDeadline
from everserve.admission.watchdog import Deadline, Watchdog
from everserve.errors import ProxyHeaderError
from everserve.sockets.counted import CountedSocket
from everserve.sockets.tls import TLS, TLSSocket

__all__ = ["Refusal", "RequestContext", "Step", "StepSettings"]

CLOSE_NOTIFY_TIMEOUT = 1.0
"""Seconds that sending the end of a TLS stream may take if the peer does not read."""


class Refusal(Exception):
    """A step refuses the request. ``reason`` is one word, for counting; the cause has the details."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class StepSettings(AdmissionLimits, Protocol):
    """The settings of a server that the steps read."""

    @property
    def proxy_protocol(self) -> bool: ...
    @property
    def proxy_timeout(self) -> float: ...
    @property
    def tls(self) -> TLS | None: ...
    @property
    def implicit_tls(self) -> bool: ...
    @property
    def handshake_timeout(self) -> float: ...
    @property
    def idle_timeout(self) -> float | None: ...
    @property
    def request_timeout(self) -> float | None: ...
    @property
    def write_timeout(self) -> float | None: ...
    @property
    def min_receive_rate(self) -> float | None: ...


class StepProgress(Protocol):
    """The receiver of the steps' reports."""

    def deadline_missed(self, connection: Any, name: str) -> None: ...
    def handshake_started(self, connection: Any) -> None: ...
    def handshake_done(self, connection: Any) -> None: ...
    def client_violation(
        self, limits: AdmissionLimits, connection: Any, address: Any, waived: Collection[str]
    ) -> str | None: ...


class Sockets(Protocol):
    """Makes the sockets that fit the request's thread or fiber: a strategy implements it."""

    def wrap_tls(self, tls: TLS, sock: socket.socket) -> TLSSocket: ...
    def count(self, sock: socket.socket) -> CountedSocket: ...


class RequestContext:
    """One request on its way to its handler. The steps change ``request`` and ``client_address``.

    ``connection`` is the server's entry for it, or ``None``. It keeps the results of the steps for the
    handler: ``proxy``, ``tls`` and ``deadlines``. ``settings`` are those of the server at the time when
    the request was admitted; ``server`` is that server; ``sockets`` makes the sockets that fit the
    request's thread or fiber.
    """

    __slots__ = (
        "_armed",
        "_watchdog",
        "client_address",
        "connection",
        "progress",
        "request",
        "server",
        "settings",
        "sockets",
    )

    def __init__(
        self,
        request: Any,
        client_address: Any,
        *,
        connection: Any,
        settings: StepSettings,
        progress: StepProgress,
        watchdog: Watchdog,
        sockets: Sockets,
        server: Any = None,
    ) -> None:
        self.request = request
        self.client_address = client_address
        self.connection = connection
        self.settings = settings
        self.progress = progress
        self.sockets = sockets
        self.server = server
        self._watchdog = watchdog
        self._armed: list[Deadline] = []

    def take(self, steps: Iterable[Step]) -> None:
        """Take the steps, in order. Raises ``Refusal``."""
        for step in steps:
            step(self)

    def arm(self, deadline: Deadline, when: float) -> None:
        """Watch ``deadline`` from the monotonic time ``when`` until the request ends."""
        self._armed.append(deadline)
        self._watchdog.watch(deadline, when)

    def admit_client(self) -> None:
        """Check the limits for peers, now that the client's address is known. Raises ``Refusal``."""
        waived: list[str] = []
        while violation := self.progress.client_violation(
            self.settings, self.connection, self.client_address, waived
        ):
            if not self._is_waived(violation):
                raise Refusal(violation)
            waived.append(violation)

    def _is_waived(self, violation: str) -> bool:
        policy = self.settings.overload
        if not isinstance(policy, OverloadPolicy) or violation == "access":
            return False
        return policy.decide(self.server, self.request, self.client_address, violation)

    def leave(self) -> None:
        """End a TLS stream in order, and stop watching: the handler has ended.

        The stream of a failed request is not ended in order: a truncated answer must not look complete.
        """
        connection = self.connection
        if connection is not None and connection.tls is not None and not connection.failed:
            connection.tls.close_notify(CLOSE_NOTIFY_TIMEOUT, last=True)
        for deadline in self._armed:
            self._watchdog.forget(deadline)
        self._armed.clear()

    def stage(self, name: str, seconds: float, work: Callable[[], None]) -> None:
        """Do all of ``work`` within ``seconds``. Raises ``Refusal`` if it fails."""
        progress, connection = self.progress, self.connection
        deadline = StageDeadline(lambda: progress.deadline_missed(connection, name))
        self._watchdog.watch(deadline, monotonic() + seconds)
        try:
            work()
        except (OSError, ssl.SSLError, ProxyHeaderError, EOFError) as error:
            missed = connection is not None and connection.missed
            raise Refusal(missed or name.removesuffix("_timeout")) from error
        finally:
            self._watchdog.forget(deadline)


Step: TypeAlias = Callable[[RequestContext], None]
"""One step of admission; it raises ``Refusal`` to refuse the request."""
