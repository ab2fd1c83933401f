"""The steps of admission that run where the request runs: PROXY header, TLS handshake, deadlines.

``Flow.finish`` takes each request through the steps of ``admission_steps``, in order, before it makes
the handler. A step raises ``Refusal`` to refuse the request.
"""

from __future__ import annotations

import socket
from typing import Any

from everserve.admission.context import Refusal, RequestContext, Step
from everserve.admission.deadlines import ConnectionDeadlines, TimeLimits
from everserve.admission.proxies import is_trusted_proxy
from everserve.errors import ProxyHeaderError, TLSConfigError
from everserve.sockets.datagrams import Datagram, is_datagram
from everserve.sockets.genuine import is_socket
from everserve.sockets.tls import TLS, TLSSocket
from everserve.wire.proxy import Command, ProxyDecoder, ProxyHeader, parse

__all__ = [
    "HANDSHAKE_TIMEOUT",
    "PROXY_TIMEOUT",
    "STEPS",
    "WAITING",
    "arm_deadlines",
    "do_handshake",
    "handshake_with",
    "read_proxy_header",
    "secure",
]

PROXY_TIMEOUT = 5.0
HANDSHAKE_TIMEOUT = 10.0
"""The defaults, in seconds. Both stages always have a limit."""


def read_proxy_header(context: RequestContext) -> None:
    """PROXY protocol: read the header from the stream; the address becomes the client's own.

    Runs for every connection of a server with ``proxy_protocol``, and for no other server. Then the
    limits for peers are checked with the client's address. The accept loop has refused a peer outside
    ``trusted_proxies``, and so does this step where a program has gone round it.
    """
    settings = context.settings
    if not settings.proxy_protocol:
        return
    if not is_trusted_proxy(context.request, context.client_address, settings.trusted_proxies):
        raise Refusal("untrusted_proxy")
    if is_datagram(context.request):
        _strip_header(context, context.request)
    elif is_socket(context.request):
        decoder = context.interrupted or ProxyDecoder()
        context.stage(
            "proxy_timeout", settings.proxy_timeout, lambda: _take_header(context, decoder), decoder
        )
        _check_client(context, context.connection and context.connection.proxy)


def _strip_header(context: RequestContext, datagram: Any) -> None:
    """Every datagram of a proxy begins with a header; the reply is sent to the proxy."""
    data, sock = datagram
    try:
        header, length = parse(data)
    except ProxyHeaderError as error:
        raise Refusal("proxy") from error
    stripped = Datagram((data[length:], sock))
    stripped.truncated = getattr(datagram, "truncated", False)
    stripped.credentials = getattr(datagram, "credentials", None)
    stripped.proxy = header
    stripped.reply_to = context.client_address
    context.request = stripped
    _believe(context, header)
    _check_client(context, header)


def _take_header(context: RequestContext, decoder: ProxyDecoder) -> None:
    _believe(context, _receive_header(context.request, decoder))


def _believe(context: RequestContext, header: ProxyHeader) -> None:
    if header.source is not None:
        context.client_address = header.source
    if context.connection is not None:
        context.connection.proxy = header
        context.connection.origin = context.connection.peer
        context.connection.peer = context.client_address


def _check_client(context: RequestContext, header: ProxyHeader | None) -> None:
    """Check the client; a header for a connection of the proxy itself (LOCAL) names none."""
    if header is None or header.command is not Command.LOCAL:
        context.admit_client()


def _receive_header(sock: socket.socket, decoder: ProxyDecoder) -> ProxyHeader:
    """Read exactly the header: the bytes after it stay in the kernel for the next reader."""
    while True:
        received = sock.recv(decoder.needed)
        if not received:
            raise EOFError("the connection ended inside the PROXY header")
        header = decoder.feed(received)
        if header is not None:
            return header


def do_handshake(context: RequestContext) -> None:
    """TLS: do the handshake; the request becomes the ``TLSSocket``."""
    settings = context.settings
    if settings.tls is not None and settings.implicit_tls and is_socket(context.request):
        context.request = secure(context)


def handshake_with(tls: TLS) -> Step:
    """A step as ``do_handshake``, with ``tls`` instead of the server's."""

    def step(context: RequestContext) -> None:
        context.request = secure(context, tls)

    return step


def secure(context: RequestContext, tls: TLS | None = None) -> TLSSocket:
    """Do a handshake on the context's request, within its time; the connection keeps the session.

    ``tls``: that of the settings, unless another is given.
    """
    settings, connection = context.settings, context.connection
    tls = tls or settings.tls
    if tls is None:
        raise TLSConfigError("start_tls() needs the server's tls, an everserve.TLS")
    secured: TLSSocket = context.interrupted or context.sockets.wrap_tls(tls, context.request)
    context.progress.handshake_started(connection)
    try:
        context.stage(
            "handshake_timeout", settings.handshake_timeout, secured.do_handshake, secured
        )
    finally:
        if context.interrupted is None:
            context.progress.handshake_done(connection)
    if connection is not None:
        connection.tls = secured
    return secured


def arm_deadlines(context: RequestContext) -> None:
    """Deadlines: from here on the time limits of the server apply to the handler."""
    settings, connection = context.settings, context.connection
    limits = TimeLimits(
        settings.idle_timeout,
        settings.request_timeout,
        settings.write_timeout,
        settings.min_receive_rate,
    )
    sheds = settings.overload == "shed-idle"
    if connection is None or not (limits or sheds):
        return
    if limits.need_traffic or sheds:
        _count_traffic(context)
    if limits:
        miss = context.progress.deadline_missed
        deadlines = ConnectionDeadlines(
            limits,
            connection,
            lambda name: miss(connection, name),
            began=None if connection.arrival is None else connection.arrival.began,
        )
        connection.deadlines = deadlines
        context.arm(deadlines, deadlines.first_look)


def _count_traffic(context: RequestContext) -> None:
    """Where the kernel does not count bytes (Unix sockets), a ``CountedSocket`` does."""
    if is_socket(context.request) and context.connection.traffic() is None:
        counted = context.sockets.count(context.request)
        context.request = context.connection.counter = counted


STEPS: tuple[Step, ...] = (read_proxy_header, do_handshake, arm_deadlines)
"""The order of admission."""

WAITING = frozenset({read_proxy_header, do_handshake})
"""Those that may wait for the peer, and can be interrupted there."""
