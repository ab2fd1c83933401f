"""``TCPServer``: a listening socket, and connections as requests.

The other servers are made from it, as in the standard library: ``udp`` and ``unix``.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from everserve.reading import option
from everserve.server.base import BaseServer
from everserve.sockets.listening import bind_internet, family_for

__all__ = ["TCPServer"]


class TCPServer(BaseServer):
    """Serves stream connections; ``request`` is the connected socket.

    Class attributes, to be set on a subclass, or on an instance made with
    ``bind_and_activate=False``; all are read when the server binds:

    - ``address_family``: follows the address (an IPv6 address gives ``AF_INET6``) unless set
    - ``socket_type``: ``SOCK_STREAM``
    - ``request_queue_size``: the backlog, in connections; default the system's largest
    - ``allow_reuse_address``, ``allow_reuse_port``: default ``False``
    - ``disable_nagle_algorithm``: accepted connections send small writes at once; default ``False``
    - ``dual_stack``: ``("", port)`` and ``("::", port)`` take IPv4 and IPv6; default ``False``

    ``server_address`` is the bound address afterwards, ``socket`` the listener, which may be replaced
    before serving. Raises ``OSError`` with the address in ``filename`` where it cannot bind.
    """

    address_family: int = socket.AF_INET
    socket_type: int = socket.SOCK_STREAM
    request_queue_size: int = socket.SOMAXCONN
    allow_reuse_address: bool = False
    allow_reuse_port: bool = False
    disable_nagle_algorithm: bool = False
    dual_stack: bool = False

    socket: socket.socket

    def __init__(
        self,
        server_address: Any,
        RequestHandlerClass: Callable[..., Any],
        bind_and_activate: bool = True,
    ) -> None:
        """Make the socket; bind and listen too unless ``bind_and_activate`` is false."""
        super().__init__(server_address, RequestHandlerClass)
        if self._family_is_free():
            family = family_for(server_address, dual_stack=option(self.dual_stack, False))
            if family != self.address_family:
                self.address_family = family
        self.socket = socket.socket(self.address_family, self.socket_type)
        if bind_and_activate:
            try:
                self.server_bind()
                self.server_activate()
            except BaseException:
                self.server_close()
                raise

    def _family_is_free(self) -> bool:
        """True if nobody has set ``address_family``: no subclass, and nothing on this class."""
        definer = next(base for base in type(self).__mro__ if "address_family" in vars(base))
        return definer is TCPServer and definer.address_family == socket.AF_INET

    def server_bind(self) -> None:
        """Bind the socket to ``server_address``, and keep the address that it got."""
        bind_internet(
            self.socket,
            self.server_address,
            reuse_address=self.allow_reuse_address,
            reuse_port=self.allow_reuse_port,
            dual_stack=option(self.dual_stack, False),
        )
        self.server_address = self.socket.getsockname()

    def server_activate(self) -> None:
        """Listen."""
        if self.disable_nagle_algorithm and self.socket.family != socket.AF_UNIX:
            # Accepted sockets inherit it: no system call for each connection.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self.socket.listen(self.request_queue_size)

    def server_close(self) -> None:
        """Close the listener. A ``serve_forever`` that still runs ends."""
        super().server_close()  # first: the accept loop is to see that the end is meant
        self._close_listener()

    def fileno(self) -> int:
        """The descriptor of the listener."""
        return self.socket.fileno()

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection: ``(socket, client_address)``."""
        return self.socket.accept()

    def shutdown_request(self, request: Any) -> None:
        """End the stream to the peer, then ``close_request``."""
        connection = self._inflight.unfile(request)
        try:
            if connection is None or not connection.gone:  # else it would fail, which takes longer
                try:
                    request.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # the peer may be gone already
            self.close_request(request)
        finally:
            if connection is not None and connection.request is not None:
                self._ended(connection)  # somebody's own close_request has not said so

    def close_request(self, request: Any) -> None:
        """Close the connection's socket."""
        connection = self._inflight.unfile(request)
        request.close()
        self._ended(connection)

    def _close_listener(self) -> None:
        self.socket.close()

    def _stop_listening(self) -> None:
        if self._listens():
            self._close_listener()

    def _socket_timeout(self) -> float | None:
        return self.socket.gettimeout()

    def _listener_for_serving(self) -> AbstractContextManager[object]:
        # A connection may be gone, or taken by a sibling process, between poll and accept. Elsewhere
        # than on Linux an accepted socket would inherit the mode.
        if sys.platform == "linux" and self._listens() and self._socket_timeout() is None:
            return _non_blocking(self.socket)
        return nullcontext()

    def _takes_batches(self) -> bool:
        return self._has_own_get_request() and self._socket_timeout() == 0.0

    def _has_own_get_request(self) -> bool:
        """True if neither a subclass nor an instance has another way to take a request."""
        module: str = getattr(self.get_request, "__module__", "")
        return module.startswith("everserve.server.") and type(self.socket) is socket.socket

    def _listens(self) -> bool:
        return self.socket_type == socket.SOCK_STREAM


@contextmanager
def _non_blocking(sock: socket.socket) -> Iterator[None]:
    sock.setblocking(False)
    try:
        yield
    finally:
        if sock.fileno() != -1:
            sock.setblocking(True)
