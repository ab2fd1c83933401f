"""The steps of admission that run where the request runs: PROXY header, TLS handshake, deadlines.

``finish_request`` sends each request through ``server.steps``, in order, before it makes the handler. A
step that objects raises ``Refusal``.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias

from everserve.admission.access import Networks, host_of
from everserve.admission.deadlines import Deadline
from everserve.admission.pace import Pace, PaceLimits, StageDeadline
from everserve.errors import ProxyHeaderError
from everserve.reading import option
from everserve.sockets.datagrams import Datagram
from everserve.sockets.tls import TLS, TLSSocket
from everserve.wire.proxy import ProxyDecoder, parse

if TYPE_CHECKING:
    from everserve.wire.proxy import ProxyHeader

__all__ = [
    "STEPS",
    "Passage",
    "Refusal",
    "Step",
    "arm_deadlines",
    "read_proxy_header",
    "shake_hands",
]

PROXY_TIMEOUT = 5.0
HANDSHAKE_TIMEOUT = 10.0
"""Seconds: the defaults. Neither stage can be without a limit."""

CLOSE_NOTIFY = 1.0
"""Seconds that the end of a TLS stream may take to be written to a peer that does not read."""


class Refusal(Exception):
    """A step turns the request away. ``reason`` is a word, for counting; the cause tells more."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Passage:
    """One request on its way to its handler. The steps change ``request`` and ``client_address``.

    ``connection`` is the server's entry for it, where the results of the steps are kept for the
    handler: ``proxy``, ``tls`` and ``pace``.
    """

    __slots__ = ("_armed", "client_address", "connection", "request", "server")

    def __init__(self, server: Any, connection: Any, request: Any, client_address: Any) -> None:
        self.server = server
        self.connection = connection
        self.request = request
        self.client_address = client_address
        self._armed: list[Deadline] = []

    def go_through(self, steps: Iterable[Step]) -> None:
        """Take the steps, in order. Raises ``Refusal``."""
        for step in steps:
            step(self)

    def arm(self, deadline: Deadline, when: float) -> None:
        """Have ``deadline`` looked at from the monotonic time ``when`` until the passage ends."""
        self._armed.append(deadline)
        self.server._watchdog.watch(deadline, when)

    def leave(self) -> None:
        """The handler has ended: say so to a TLS peer, and watch no more.

        Not to the peer of one that failed: an answer that was cut must not look complete.
        """
        connection = self.connection
        if connection is not None and connection.tls is not None and not connection.failed:
            connection.tls.close_notify(CLOSE_NOTIFY, last=True)
        for deadline in self._armed:
            self.server._watchdog.forget(deadline)
        self._armed.clear()

    def stage(self, name: str, seconds: float, work: Callable[[], None]) -> None:
        """Do ``work`` in at most ``seconds``, all of it; raises ``Refusal`` where it fails."""
        server, connection = self.server, self.connection
        deadline = StageDeadline(lambda: server._deadline_missed(connection, name))
        server._watchdog.watch(deadline, monotonic() + seconds)
        try:
            work()
        except (OSError, ssl.SSLError, ProxyHeaderError, EOFError) as error:
            missed = connection is not None and connection.missed
            raise Refusal(missed or name.removesuffix("_timeout")) from error
        finally:
            server._watchdog.forget(deadline)


Step: TypeAlias = Callable[[Passage], None]


def read_proxy_header(passage: Passage) -> None:
    """PROXY protocol: take the header off the stream; the address becomes the client's own.

    Only for a server with ``proxy_protocol``, and then always: a peer that is none of
    ``trusted_proxies`` is refused, unheard.
    """
    server = passage.server
    if not option(server.proxy_protocol):
        return
    host = host_of(passage.client_address)
    if host is not None and host not in Networks.of(option(server.trusted_proxies, ())):
        raise Refusal("untrusted_proxy")
    if isinstance(passage.request, Datagram):
        _strip_header(passage, passage.request)
    elif isinstance(passage.request, socket.socket):
        seconds = option(server.proxy_timeout, PROXY_TIMEOUT)
        passage.stage("proxy_timeout", seconds, lambda: _take_header(passage))


def _strip_header(passage: Passage, datagram: Datagram) -> None:
    """Every datagram of a proxy begins with a header; the reply goes to the proxy."""
    data, sock = datagram
    try:
        header, length = parse(data)
    except ProxyHeaderError as error:
        raise Refusal("proxy") from error
    stripped = Datagram((data[length:], sock))
    stripped.truncated = datagram.truncated
    stripped.proxy = header
    stripped.reply_to = passage.client_address
    passage.request = stripped
    _believe(passage, header)


def _take_header(passage: Passage) -> None:
    _believe(passage, _receive_header(passage.request))


def _believe(passage: Passage, header: ProxyHeader) -> None:
    if header.source is not None:
        passage.client_address = header.source
    if passage.connection is not None:
        passage.connection.proxy = header
        passage.connection.peer = passage.client_address


def _receive_header(sock: socket.socket) -> ProxyHeader:
    """Read exactly the header: what comes behind it stays in the kernel for who comes next."""
    decoder = ProxyDecoder()
    while True:
        received = sock.recv(decoder.needed)
        if not received:
            raise EOFError("the connection ended inside the PROXY header")
        header = decoder.feed(received)
        if header is not None:
            return header


def shake_hands(passage: Passage) -> None:
    """TLS: do the handshake; the request becomes the ``TLSSocket``."""
    server = passage.server
    if (
        option(server.tls) is not None
        and option(server.implicit_tls, True)
        and isinstance(passage.request, socket.socket)
    ):
        passage.request = secure(passage)


def secure(passage: Passage) -> TLSSocket:
    """Do a handshake on the passage's request, in its time; the connection keeps the session."""
    server = passage.server
    if isinstance(server.tls, ssl.SSLContext):
        server.tls = TLS.of(server.tls)
    layer: TLSSocket = server._speak_tls(server.tls, passage.request)
    server._greet(passage.connection)
    try:
        seconds = option(server.handshake_timeout, HANDSHAKE_TIMEOUT)
        passage.stage("handshake_timeout", seconds, layer.do_handshake)
    finally:
        server._greeted(passage.connection)
    if passage.connection is not None:
        passage.connection.tls = layer
    return layer


_NO_LIMITS = (None, None, None, None)


def arm_deadlines(passage: Passage) -> None:
    """Deadlines: from here the handler must keep to the server's limits of time."""
    server, connection = passage.server, passage.connection
    given = (
        server.idle_timeout,
        server.request_timeout,
        server.write_timeout,
        server.min_receive_rate,
    )
    if connection is None or (given == _NO_LIMITS and server.overload != "shed-idle"):
        return
    limits = PaceLimits(*(option(limit) for limit in given))
    if limits.need_traffic or server.overload == "shed-idle":
        _have_counted(passage)
    if limits:
        miss = server._deadline_missed
        connection.pace = pace = Pace(limits, connection, lambda name: miss(connection, name))
        passage.arm(pace, pace.first_look)


def _have_counted(passage: Passage) -> None:
    """Where the kernel does not tell what moves (Unix sockets), a layer of our own does."""
    if isinstance(passage.request, socket.socket) and passage.connection.traffic() is None:
        counted = passage.server._count(passage.request)
        passage.request = passage.connection.counter = counted


STEPS: tuple[Step, ...] = (read_proxy_header, shake_hands, arm_deadlines)
"""The order of admission."""
