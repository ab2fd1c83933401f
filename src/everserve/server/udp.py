"""``UDPServer``: datagrams as requests, received whole."""

from __future__ import annotations

import socket
from typing import Any

from everserve.server.hooks import default_hook
from everserve.server.tcp import TCPServer
from everserve.sockets.datagrams import LARGEST, receive

__all__ = ["UDPServer"]


class UDPServer(TCPServer):
    """Serves datagrams; ``request`` is the pair ``(data, socket)``.

    ``max_packet_size`` (bytes, default 65,535: the largest there is) bounds what is received of a
    datagram. One that is longer is cut, and that is reported: ``request.truncated``, ``truncated`` on
    the handler and the event ``Truncated``.
    """

    socket_type = socket.SOCK_DGRAM
    max_packet_size: int = LARGEST

    def server_activate(self) -> None:
        """A datagram socket needs no listening."""

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
