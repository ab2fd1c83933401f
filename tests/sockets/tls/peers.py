"""Both ends of a TLS connection over loopback: a `TLSSocket` here, the standard library's there."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

from tests.clients import LIMIT, Background

from everserve.fibers.engine import FiberSocket, FiberTLSSocket, Records, Semaphore
from everserve.sockets.tls import TLS, TLSSocket

Pair = tuple[TLSSocket, ssl.SSLSocket]


def _over_a_socket(tls: TLS, sock: socket.socket, **options: Any) -> TLSSocket:
    return tls.wrap(sock, **options)


def _over_a_fiber_socket(tls: TLS, sock: socket.socket, **options: Any) -> TLSSocket:
    return tls.wrap(FiberSocket.adopt(sock), **options)


def _by_the_engine(tls: TLS, sock: socket.socket, **options: Any) -> TLSSocket:
    """As servers with fibers do it."""
    parts: dict[str, Any] = {"records": Records, "kind": FiberTLSSocket, "turn": Semaphore(1)}
    return tls.wrap(FiberSocket.adopt(sock), **(parts | options))


WAYS: dict[str, Callable[..., TLSSocket]] = {
    "socket": _over_a_socket,
    "FiberSocket": _over_a_fiber_socket,
    "FiberTLSSocket": _by_the_engine,
}
"""How a server's `TLSSocket` may be made; outside of fibers, all of them block the thread.

The first two are the reference; where the engine was compiled, so is all of the third.
"""


def connection() -> tuple[socket.socket, socket.socket]:
    """The server's and the client's end of a plain connection; no wait is for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), LIMIT)
        server, _address = listener.accept()
    server.settimeout(LIMIT)
    for sock in (server, client):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return server, client


@contextlib.contextmanager
def plain_peers() -> Iterator[tuple[socket.socket, socket.socket]]:
    """As `connection`, closed in the end."""
    server, client = connection()
    with server, client:
        yield server, client


@contextlib.contextmanager
def peers(
    tls: TLS,
    context: ssl.SSLContext,
    *,
    name: str | None = "localhost",
    way: str = "socket",
    session: ssl.SSLSession | None = None,
    **options: Any,
) -> Iterator[tuple[TLSSocket, ssl.SSLSocket]]:
    """A server and a client that have shaken hands; `options` are those of `TLS.wrap`."""
    plain, raw = connection()
    server = WAYS[way](tls, plain, **options)
    with contextlib.ExitStack() as stack:
        stack.callback(server.inner.close)
        stack.callback(raw.close)
        shaking = Background(context.wrap_socket, raw, server_hostname=name, session=session)
        server.do_handshake()
        client = shaking.result()
        stack.callback(client.close)
        yield server, client


def shake(tls: TLS, context: ssl.SSLContext, name: str | None = "localhost") -> dict[str, Any]:
    """What a client learns of the server in a handshake."""
    with peers(tls, context, name=name) as (_server, client):
        return {
            "names": [value for _kind, value in client.getpeercert()["subjectAltName"]],
            "serial": client.getpeercert()["serialNumber"],
            "alpn": client.selected_alpn_protocol(),
            "version": client.version(),
        }


def refusal(tls: TLS, context: ssl.SSLContext, name: str | None = "localhost") -> OSError:
    """The server's error of a handshake that must fail; the client sees one too."""
    with plain_peers() as (plain, raw):

        def come() -> None:
            with context.wrap_socket(raw, server_hostname=name) as client:
                client.recv(1)  # in TLS 1.3 a client learns of it here

        coming = Background(come)
        server = tls.wrap(plain)
        try:
            server.do_handshake()
        except OSError as error:
            plain.close()
            told = error
        else:
            raise AssertionError("the handshake went well")
        try:
            coming.result()
        except OSError:
            return told
        raise AssertionError("the client was not told")


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes."""
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(min(size - len(parts), 1 << 16))  # recv() makes room for all it is told
        assert part, f"the stream ended after {len(parts)} of {size} bytes"
        parts += part
    return bytes(parts)


def fill(sock: socket.socket) -> None:
    """Send clear bytes until the kernel takes no more."""
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(65_536))
