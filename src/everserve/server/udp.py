"""``UDPServer``: datagrams as requests, received whole."""

from __future__ import annotations

import socket
from typing import Any

from everserve.events import Truncated
from everserve.server.tcp import TCPServer
from everserve.sockets.datagrams import LARGEST, receive

__all__ = ["UDPServer"]


class UDPServer(TCPServer):
    """Serves datagrams; ``request`` is the pair ``(data, socket)``.

    ``max_packet_size`` (bytes, default 65,535: the largest there is) bounds what is received of a
    datagram. One that is longer is cut, and told: ``request.truncated``, ``truncated`` on the handler
    and the event ``Truncated``.
    """

    socket_type = socket.SOCK_DGRAM
    max_packet_size: int = LARGEST

    def server_activate(self) -> None:
        """A datagram socket needs no listening."""

    def get_request(self) -> tuple[Any, Any]:
        """Receive a datagram: ``((data, socket), client_address)``."""
        datagram, peer = receive(
            self.socket, self.max_packet_size, wait=not self._life.serving_here()
        )
        if datagram.truncated:
            self._tell(Truncated(peer, self.max_packet_size))
        return datagram, peer

    def _takes_batches(self) -> bool:
        return self._has_own_get_request() and self._socket_timeout() is None

    def shutdown_request(self, request: Any) -> None:
        """There is nothing to end but the request."""
        connection = self._inflight.find(request)
        self.close_request(request)
        self._ended(connection)

    def close_request(self, request: Any) -> None:
        """There is nothing to close: the socket is the server's."""
        self._ended(self._inflight.find(request))
