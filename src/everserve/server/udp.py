"""``UDPServer``: datagrams as requests, received whole."""

from __future__ import annotations

import socket
from typing import Any

from everserve.addresses import is_group
from everserve.fibers.log import logger
from everserve.reading import attribute_of
from everserve.server.hooks import default_hook
from everserve.server.tcp import TCPServer
from everserve.sockets.datagrams import LARGEST, receive
from everserve.sockets.receiving import allow_broadcast, enlarge_buffer, join

__all__ = ["UDPServer"]


class UDPServer(TCPServer):
    """Serves datagrams; ``request`` is the pair ``(data, socket)``.

    ``max_packet_size`` (bytes, default 65,535: the largest there is) bounds what is received of a
    datagram. One that is longer is cut, and that is reported: ``request.truncated``, ``truncated`` on
    the handler and the event ``Truncated``.

    Class attributes that are read when the server binds:

    - ``receive_buffer`` (bytes, default ``None``: the system's): how much the kernel keeps of what
      waits to be received; a warning says where the system gives less
    - ``broadcast`` (default ``False``): handlers may send to broadcast addresses
    - ``multicast_interface`` (default ``None``: join nothing): the server joins the multicast group
      that is its address, on the interface with that name; ``""``: on the one that the system chooses
    """

    socket_type = socket.SOCK_DGRAM
    max_packet_size: int = LARGEST
    receive_buffer: int | None = None
    broadcast: bool = False
    multicast_interface: str | None = None

    def server_activate(self) -> None:
        """Have the socket receive as the options say; it needs no listening."""
        size = attribute_of(self, "receive_buffer")
        if type(size) is int and size > 0:
            _enlarge_buffer(self.socket, size)
        if attribute_of(self, "broadcast") is True:
            allow_broadcast(self.socket)
        interface = attribute_of(self, "multicast_interface")
        address = self.server_address
        if type(interface) is str and type(address) is tuple and is_group(address[0]):
            join(self.socket, address[0], interface)

    @default_hook
    def get_request(self) -> tuple[Any, Any]:
        """Receive a datagram: ``((data, socket), client_address)``."""
        runtime = self._everserve
        return receive(self.socket, self.max_packet_size, wait=not runtime.life.serving_here())

    @default_hook
    def shutdown_request(self, request: Any) -> None:
        """There is nothing to end but the request."""
        self._everserve.flow.shut_down(self, request)

    @default_hook
    def close_request(self, request: Any) -> None:
        """There is nothing to close: the socket is the server's."""
        self._everserve.flow.close(self, request)

    def server_close(self) -> None:
        """Close the socket, unless a request that has called ``stop`` still replies through it."""
        life = self._everserve.life
        self._everserve.conductor.close()
        # Only the stop itself leaves it open; a call that comes after closes it at once.
        if not (life.keeps_listener and life.stop.is_closing):
            life.keeps_listener = False
            self._everserve.note_drops(self, last=True)
            self.socket.close()
            life.notifier.notify()  # a caller may wait for that


def _enlarge_buffer(sock: socket.socket, size: int) -> None:
    given = enlarge_buffer(sock, size)
    if given < size:
        logger.warning(
            "receive_buffer = %d: the system gives %d bytes; raise net.core.rmem_max, or grant"
            " CAP_NET_ADMIN",
            size,
            given,
        )
