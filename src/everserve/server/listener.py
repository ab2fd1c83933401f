"""The listening socket of a server while it serves: its mode, its batches, its end.

``listener_of`` looks at what ``server.socket`` is now: a program may have replaced it.
"""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

from everserve.server.hooks import is_default
from everserve.sockets.tls import TLS

__all__ = ["DatagramListener", "Listener", "StreamListener", "listener_of"]


class Listener:
    """Where requests come from, if that is no socket: only the hooks of the server know it."""

    accepts_connections = False
    """True if connections are accepted from it: ``close`` refuses new ones, and harms none."""

    accepts_streams = False
    """True if those are byte streams, so that a batch of them may be accepted at once."""

    def timeout(self) -> float | None:
        """The timeout of the socket, in seconds."""
        return None

    def tls(self) -> TLS | None:
        """What its connections begin with, if it is an ``ssl.SSLSocket``."""
        return None

    @contextmanager
    def accepting(self) -> Iterator[None]:
        """Around each accept: connections come as they are, before any handshake."""
        yield

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Around a run: the mode that the accept loop needs."""
        yield

    def takes_batches(self, get_request: Any) -> bool:
        """True if ``get_request`` says at once that nothing waits, so that it may be called again."""
        return False

    def close(self) -> None:
        """Close it."""


class _SocketListener(Listener):
    """A socket of the server. *Ownership*: the server's."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._is_plain = type(sock) in (socket.socket, ssl.SSLSocket)
        self.accepts_streams = sock.type == socket.SOCK_STREAM  # once: it takes a microsecond

    def timeout(self) -> float | None:
        return self._socket.gettimeout()

    def close(self) -> None:
        self._socket.close()

    def _is_taken_plainly(self, get_request: Any) -> bool:
        return self._is_plain and is_default(get_request)


class StreamListener(_SocketListener):
    """A socket that listens: connections are accepted from it."""

    accepts_connections = True

    def tls(self) -> TLS | None:
        sock = self._socket
        # A subclass that accepts in its own way goes on to do so.
        if not isinstance(sock, ssl.SSLSocket) or type(sock).accept is not ssl.SSLSocket.accept:
            return None
        return TLS.of(sock.context)

    @contextmanager
    def accepting(self) -> Iterator[None]:
        if self.tls() is None:
            yield
            return
        # `SSLSocket.accept` does the handshake: the accept loop would wait for the peer. The program's
        # own `get_request` calls this too.
        sock: Any = self._socket
        sock.accept = MethodType(socket.socket.accept, sock)
        try:
            yield
        finally:
            del sock.accept

    @contextmanager
    def serving(self) -> Iterator[None]:
        # A connection may be gone, or taken by a sibling process, between poll and accept. Elsewhere
        # than on Linux an accepted socket would inherit the mode.
        if sys.platform != "linux" or self.timeout() is not None:
            yield
            return
        self._set_blocking(False)
        try:
            yield
        finally:
            self._set_blocking(True)

    def _set_blocking(self, blocking: bool) -> None:
        try:
            self._socket.setblocking(blocking)
        except OSError:
            if self._socket.fileno() != -1:  # else it was closed meanwhile, and has no mode
                raise

    def takes_batches(self, get_request: Any) -> bool:
        return self.timeout() == 0.0 and self._is_taken_plainly(get_request)


class DatagramListener(_SocketListener):
    """A socket of datagrams: requests reply through it, so that it closes last."""

    def takes_batches(self, get_request: Any) -> bool:
        return self.timeout() is None and self._is_taken_plainly(get_request)


def listener_of(server: Any) -> Listener:
    """The listener behind ``server.socket``."""
    sock: Any = getattr(server, "socket", None)
    if not issubclass(type(sock), socket.socket):
        return Listener()
    return DatagramListener(sock) if sock.type == socket.SOCK_DGRAM else StreamListener(sock)
