"""Both ends of a TLS connection over loopback: a `TLSSocket` here, the standard library's there."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.clients import LIMIT, Background

from everserve.fibers.engines import FiberSocket, FiberTLSSocket, Records, Semaphore
from everserve.sockets.tls import TLS, TLSSocket

Pair = tuple[TLSSocket, ssl.SSLSocket]


def _over_a_socket(tls: TLS, sock: socket.socket, **options: Any) -> TLSSocket:
    return tls.wrap(sock, **options)


def _over_a_fiber_socket(tls: TLS, sock: socket.socket, **options: Any) -> TLSSocket:
    return tls.wrap(FiberSocket.adopt(sock), **options)


def _by_the_engine(tls: TLS, sock: socket.socket, **options: Any) -> TLSSocket:
    """As servers with fibers do it."""
    parts: dict[str, Any] = {"records": Records, "kind": FiberTLSSocket, "write_lock": Semaphore(1)}
    return tls.wrap(FiberSocket.adopt(sock), **(parts | options))


KINDS: dict[str, Callable[..., TLSSocket]] = {
    "socket": _over_a_socket,
    "FiberSocket": _over_a_fiber_socket,
    "FiberTLSSocket": _by_the_engine,
}
"""How a server's `TLSSocket` may be made. Outside of fibers each of them blocks the thread.

The first two are the reference; the third is compiled where the engine is.
"""


def connection() -> tuple[socket.socket, socket.socket]:
    """The server's and the client's end of a plain connection, with time limits."""
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
    kind: str = "socket",
    session: ssl.SSLSession | None = None,
    **options: Any,
) -> Iterator[tuple[TLSSocket, ssl.SSLSocket]]:
    """A server and a client after the handshake; `options` are those of `TLS.wrap`."""
    plain, raw = connection()
    server = KINDS[kind](tls, plain, **options)
    with contextlib.ExitStack() as stack:
        stack.callback(server.inner.close)
        stack.callback(raw.close)
        handshake = Background(context.wrap_socket, raw, server_hostname=name, session=session)
        server.do_handshake()
        client = handshake.result()
        stack.callback(client.close)
        yield server, client


def handshake_with(
    tls: TLS, context: ssl.SSLContext, name: str | None = "localhost"
) -> dict[str, Any]:
    """What a client learns of the server in a handshake."""
    with peers(tls, context, name=name) as (_server, client):
        return {
            "names": [value for _kind, value in client.getpeercert()["subjectAltName"]],
            "serial": client.getpeercert()["serialNumber"],
            "alpn": client.selected_alpn_protocol(),
            "version": client.version(),
        }


def refusal(tls: TLS, context: ssl.SSLContext, name: str | None = "localhost") -> OSError:
    """The error of the server in a handshake that must fail; the client gets one too."""
    with plain_peers() as (plain, raw):

        def connect() -> None:
            with context.wrap_socket(raw, server_hostname=name) as client:
                client.recv(1)  # in TLS 1.3 a client learns of it here

        connecting = Background(connect)
        server = tls.wrap(plain)
        try:
            server.do_handshake()
        except OSError as error:
            plain.close()
            failure = error
        else:
            raise AssertionError("the handshake did not fail")
        try:
            connecting.result()
        except OSError:
            return failure
        raise AssertionError("the client received no error")


class MemorySocket:
    """A server's inner socket in memory, with a client at its other end, whose data is cut at will."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._client = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._pieces: list[bytes] = []
        self.timeout: float | None = None

    def advance_handshake(self) -> None:
        """Send what the client sends next in the handshake."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._client.do_handshake()
        self.send_pieces(self._outgoing.read())

    def send_messages(self, messages: list[bytes], cuts: list[int]) -> None:
        """Encrypt each message in records of its own, and send all in pieces of these sizes."""
        self.send_pieces(self.encrypt(messages), cuts)

    def encrypt(self, messages: list[bytes], *, end: bool = False) -> bytes:
        """Each message in records of its own; at the `end`, close_notify."""
        for message in messages:
            self._client.write(message)
        if end:
            with contextlib.suppress(ssl.SSLWantReadError):
                self._client.unwrap()
        return self._outgoing.read()

    def send_pieces(self, ciphertext: bytes, cuts: Iterable[int] = ()) -> None:
        """Send ciphertext, in pieces of these sizes."""
        for cut in cuts:
            self._pieces.append(ciphertext[:cut])
            ciphertext = ciphertext[cut:]
        self._pieces.append(ciphertext)
        self._pieces = [piece for piece in self._pieces if piece]

    def recv(self, _size: int) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def send(self, data: bytes) -> int:
        self._incoming.write(data)
        if not self._client.version():
            self.advance_handshake()
        return len(data)

    def gettimeout(self) -> float | None:
        return self.timeout

    def setsockopt(self, *_arguments: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def fileno(self) -> int:
        return -1


def over_memory(tls: TLS, context: ssl.SSLContext) -> tuple[TLSSocket, MemorySocket]:
    """A server after the handshake, on a socket in memory."""
    inner: Any = MemorySocket(context)
    server = tls.wrap(inner)
    inner.advance_handshake()
    server.do_handshake()
    return server, inner


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes."""
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(
            min(size - len(parts), 1 << 16)
        )  # recv() allocates all that it is asked for
        assert part, f"the stream ended after {len(parts)} of {size} bytes"
        parts += part
    return bytes(parts)


def fill(sock: socket.socket) -> None:
    """Send clear bytes until the kernel takes no more."""
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(65_536))
