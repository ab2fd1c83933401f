"""The listening socket of a server while it serves: its mode, its batches, its end.

``listener_of`` looks at what ``server.socket`` is now: a program may have replaced it.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import MethodType
from typing import Any

from everserve.fibers.engines import DatagramSocket
from everserve.fibers.helperthreads import try_to_start
from everserve.server.hooks import is_default
from everserve.sockets.datagrams import Exchange
from everserve.sockets.genuine import RealSocket, is_socket
from everserve.sockets.inheriting import came_non_blocking
from everserve.sockets.standin import give_up
from everserve.sockets.tls import TLS

__all__ = [
    "DatagramListener",
    "Listener",
    "StreamListener",
    "leave_all_to_parent",
    "listener_of",
    "remember",
]

_PLAIN = (socket.socket, ssl.SSLSocket, DatagramSocket)

_servers: weakref.WeakValueDictionary[int, object] = weakref.WeakValueDictionary()
"""All servers of the process, by their ``id``."""


class Listener:
    """Where requests come from, if that is no socket: only the hooks of the server know it."""

    accepts_connections = False
    """True if connections are accepted from it: ``close`` refuses new ones, and harms none."""

    accepts_streams = False
    """True if those are byte streams, so that a batch of them may be accepted at once."""

    has_datagrams = False
    """True if its requests are datagrams."""

    exchange: Exchange | None = None
    """What receives datagrams in batches, if it is a socket of such a server."""

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

    def prepare(self) -> None:
        """Before each ``get_request`` of a run: make sure that it cannot block the accept loop."""

    def takes_batches(self, get_request: Any) -> bool:
        """True if ``get_request`` says at once that nothing waits, so that it may be called again."""
        return False

    def close(self) -> None:
        """Close it."""

    def leave_to_parent(self) -> None:
        """In a forked child: hold the listener no longer, unless requests reply through it."""


class _SocketListener(Listener):
    """A socket of the server. *Ownership*: the server's."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._is_plain = type(sock) in _PLAIN
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

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._has_mode = sys.platform == "linux" and issubclass(type(sock), RealSocket)

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
        # than on Linux an accepted socket would inherit the mode; a green one has its own (eventlet).
        if not self._has_mode or self.timeout() is not None:
            yield
            return
        self._set_timeout(0.0)
        try:
            yield
        finally:
            self._set_timeout(None)
            if came_non_blocking(self._socket):
                self.prepare()

    def prepare(self) -> None:
        # All processes that share the listener share its mode: another may have changed it.
        if self._has_mode:
            with suppress(OSError):  # closed: accept says so
                os.set_blocking(self._socket.fileno(), False)

    def leave_to_parent(self) -> None:
        give_up(self._socket)

    def _set_timeout(self, timeout: float | None) -> None:
        try:
            self._socket.settimeout(timeout)
        except OSError:
            if self._socket.fileno() != -1:  # else it was closed meanwhile, and has no mode
                raise

    def takes_batches(self, get_request: Any) -> bool:
        return self.timeout() == 0.0 and self._is_taken_plainly(get_request)


class DatagramListener(_SocketListener):
    """A socket of datagrams: requests reply through it, so that it closes last."""

    has_datagrams = True

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        if isinstance(sock, DatagramSocket) and sock.fileno() != -1:
            self.exchange = sock.exchange(_start_thread)

    def takes_batches(self, get_request: Any) -> bool:
        return self.timeout() is None and self._is_taken_plainly(get_request)


def _start_thread(target: Callable[[], object]) -> object:
    return try_to_start(target, name="everserve-replies")


def listener_of(server: Any) -> Listener:
    """The listener behind ``server.socket``."""
    sock: Any = getattr(server, "socket", None)
    if not is_socket(sock):
        return Listener()
    return DatagramListener(sock) if sock.type == socket.SOCK_DGRAM else StreamListener(sock)


def remember(server: object) -> None:
    """Note a server, for ``leave_all_to_parent``. Does not keep it alive."""
    _servers[id(server)] = server


def leave_all_to_parent() -> None:
    """In a forked child that handles one request: hold no listener of the process."""
    for server in tuple(_servers.values()):
        listener_of(server).leave_to_parent()
