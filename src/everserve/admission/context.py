"""The context of one request on its way to its handler: what the steps of admission read and change.

``Flow.finish`` makes one for each request of a server that has steps to take, and calls ``leave`` at
the end.
"""

from __future__ import annotations

import selectors
import socket
import ssl
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final, Protocol, TypeAlias

from everserve.admission.control import AdmissionLimits, OverloadPolicy
from everserve.admission.deadlines import StageDeadline
from everserve.admission.watchdog import Deadline, Watchdog
from everserve.errors import ProxyHeaderError
from everserve.sockets.counted import CountedSocket
from everserve.sockets.tls import TLS, TLSSocket

__all__ = ["Refusal", "RequestContext", "Step", "StepSettings"]

_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""What a step raises on a socket that does not block, where it would have to wait."""

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

    ``advance`` takes the first steps without waiting. A step that would have to wait for the peer is
    interrupted, and taken again; ``interrupted`` is what it has begun, such as a ``TLSSocket``.
    """

    __slots__ = (
        "_armed",
        "_failure",
        "_is_early",
        "_next",
        "_plain",
        "_stage",
        "_timeout",
        "_watchdog",
        "client_address",
        "connection",
        "interrupted",
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
        self._next = 0  # the first step that is not taken
        self._stage: StageDeadline | None = None  # that of the step that was interrupted
        self._failure: Exception | None = None  # of a step that was taken early
        self._is_early = False  # steps do not wait
        self._plain: Any = None  # the request as it came,
        self._timeout: float | None = None  # and its time limit, meanwhile
        self.interrupted: Any = None

    def take(self, steps: Sequence[Step]) -> None:
        """Take the steps that are not taken yet, in order. Raises ``Refusal``."""
        if self._failure is not None:
            raise self._failure
        for step in steps[self._next :]:
            step(self)
            self._next += 1

    @property
    def refusal(self) -> Refusal | None:
        """That of a step which was taken early."""
        return self._failure if isinstance(self._failure, Refusal) else None

    def begin_early(self) -> None:
        """Let the steps not wait, until ``end_early``. Raises ``OSError``."""
        self._plain, self._timeout = self.request, self.request.gettimeout()
        self._plain.setblocking(False)
        self._is_early = True

    def advance(self, steps: Sequence[Step]) -> int:
        """Take these first steps as far as possible without waiting.

        Returns the event of ``selectors`` to wait for before the next call; 0 if there is nothing to
        wait for: ``take`` then goes on, or raises what a step has raised.
        """
        try:
            self.take(steps)
        except ssl.SSLWantWriteError:
            return selectors.EVENT_WRITE
        except (BlockingIOError, ssl.SSLWantReadError):
            return selectors.EVENT_READ
        except Exception as error:
            self._failure = error
        return 0

    def end_early(self) -> None:
        """Let the steps wait again."""
        self._is_early = False
        with suppress(OSError):  # it was closed meanwhile
            self._plain.settimeout(self._timeout)

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
        if self._stage is not None:
            self._watchdog.forget(self._stage)
        for deadline in self._armed:
            self._watchdog.forget(deadline)
        self._armed.clear()

    def stage(
        self, name: str, seconds: float, work: Callable[[], None], begun: object = None
    ) -> None:
        """Do all of ``work`` within ``seconds``. Raises ``Refusal`` if it fails.

        Where it would have to wait and must not, the error of the socket leaves this, and the next call
        goes on: ``interrupted`` is then ``begun``, and the time is that of the first call.
        """
        progress, connection = self.progress, self.connection
        deadline = self._stage
        if deadline is None:
            deadline = StageDeadline(lambda: progress.deadline_missed(connection, name))
            self._watchdog.watch(deadline, monotonic() + seconds)
        self._stage = self.interrupted = None
        try:
            work()
        except (OSError, ssl.SSLError, ProxyHeaderError, EOFError) as error:
            if self._is_early and isinstance(error, _WOULD_BLOCK):
                self._stage, self.interrupted = deadline, begun
                raise
            missed = connection is not None and connection.missed
            raise Refusal(missed or name.removesuffix("_timeout")) from error
        finally:
            if self._stage is None:
                self._watchdog.forget(deadline)


Step: TypeAlias = Callable[[RequestContext], None]
"""One step of admission; it raises ``Refusal`` to refuse the request."""
