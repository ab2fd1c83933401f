"""``TCPServer``: a listening socket, and connections as requests.

The other servers are made from it, as in the standard library: ``udp`` and ``unix``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from everserve.fibers.engines import DatagramSocket
from everserve.reading import DefaultInt, attribute_of
from everserve.server.base import BaseServer
from everserve.server.hooks import default_hook
from everserve.sockets.genuine import is_patched
from everserve.sockets.listening import (
    bind_internet,
    family_for,
    give_up_dead_peers,
    set_options,
)

__all__ = ["TCPServer", "set_connection_options"]

_FOLLOWS_ADDRESS = DefaultInt(socket.AF_INET)


class TCPServer(BaseServer):
    """Serves stream connections; ``request`` is the connected socket.

    Class attributes, to be set on a subclass, or on an instance made with
    ``bind_and_activate=False``; all are read when the server binds:

    - ``address_family``: follows the address (an IPv6 address gives ``AF_INET6``) unless set
    - ``socket_type``: ``SOCK_STREAM``
    - ``request_queue_size``: the backlog, in connections; default the system's largest
    - ``allow_reuse_address``, ``allow_reuse_port``: default ``False``
    - ``disable_nagle_algorithm``: accepted connections send small writes at once; default ``False``
    - ``keep_alive`` (seconds, default ``None``: never): TCP asks a peer that is silent for so long
      whether it is there; one that does not answer for as long again is given up
    - ``tcp_user_timeout`` (seconds, default ``None``: the system's, about 15 minutes): how long sent
      bytes may stay unacknowledged before the connection is given up
    - ``dual_stack``: ``("", port)`` and ``("::", port)`` take IPv4 and IPv6; default ``False``

    ``server_address`` is the bound address afterwards, ``socket`` the listener, which may be replaced
    before serving. Raises ``OSError`` with the address in ``filename`` where it cannot bind.
    """

    address_family: int = _FOLLOWS_ADDRESS
    socket_type: int = socket.SOCK_STREAM
    request_queue_size: int = socket.SOMAXCONN
    allow_reuse_address: bool = False
    allow_reuse_port: bool = False
    disable_nagle_algorithm: bool = False
    keep_alive: float | None = None
    tcp_user_timeout: float | None = None
    dual_stack: bool = False

    socket: socket.socket

    def __init__(
        self,
        server_address: Any,
        RequestHandlerClass: Callable[..., Any],
        bind_and_activate: bool = True,
    ) -> None:
        """Make the socket; bind and listen too unless ``bind_and_activate`` is false."""
        BaseServer.__init__(self, server_address, RequestHandlerClass)
        if self.address_family is _FOLLOWS_ADDRESS:
            both = attribute_of(self, "dual_stack") is True
            self.address_family = DefaultInt(family_for(server_address, dual_stack=both))
        self.socket = _class_for(self.socket_type)(self.address_family, self.socket_type)
        if bind_and_activate:
            try:
                self.server_bind()
                self.server_activate()
            except BaseException:
                self._everserve.conductor.remove_file()
                self.server_close()
                raise

    def server_bind(self) -> None:
        """Bind the socket to ``server_address``, and keep the address that it got."""
        bind_internet(
            self.socket,
            self.server_address,
            reuse_address=self.allow_reuse_address,
            reuse_port=self.allow_reuse_port,
            dual_stack=_dual_stack_of(self),
        )
        self.server_address = self.socket.getsockname()

    def server_activate(self) -> None:
        """Listen."""
        set_connection_options(self)
        self.socket.listen(self.request_queue_size)

    def server_close(self) -> None:
        """Close the listener. A ``serve_forever`` that still runs ends."""
        BaseServer.server_close(self)  # first: the accept loop is to see that the end is meant
        self.socket.close()

    def fileno(self) -> int:
        """The descriptor of the listener."""
        return self.socket.fileno()

    @default_hook
    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection: ``(socket, client_address)``."""
        return self.socket.accept()

    def shutdown_request(self, request: Any) -> None:
        """End the stream to the peer, then ``close_request``."""
        self._everserve.flow.shut_down(self, request, is_stream=True)

    def close_request(self, request: Any) -> None:
        """Close the connection's socket."""
        self._everserve.flow.close(self, request, is_stream=True)


def _class_for(kind: int) -> type[socket.socket]:
    """The class of the socket; a program may have replaced ``socket.socket``."""
    return DatagramSocket if kind == socket.SOCK_DGRAM and not is_patched() else socket.socket


def set_connection_options(server: TCPServer) -> None:
    """Set the options that accepted sockets inherit: no system call for each connection."""
    no_delay = attribute_of(server, "disable_nagle_algorithm") is True
    set_options(server.socket, no_delay=no_delay)
    if server.socket.family != socket.AF_UNIX:
        give_up_dead_peers(
            server.socket,
            keep_alive=_seconds(attribute_of(server, "keep_alive")),
            user_timeout=_seconds(attribute_of(server, "tcp_user_timeout")),
        )


def _seconds(value: Any) -> float | None:
    """The value of an option; ``None`` where the program has its own attribute of that name."""
    return value if type(value) in (int, float) and 1 <= value <= 32_767 else None


def _dual_stack_of(server: TCPServer) -> bool | None:
    """Whether IPv6 takes IPv4 too; ``None`` to leave that to the program, and to the system.

    A program that chooses the family itself may set ``IPV6_V6ONLY`` too, as ``http.server`` does.
    """
    if attribute_of(server, "dual_stack") is True:
        return True
    return False if type(server.address_family) is DefaultInt else None
