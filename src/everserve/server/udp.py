"""``UDPServer``: datagrams as requests, received whole."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from everserve.events import Truncated
from everserve.server.lastwords import LastWords
from everserve.server.tcp import TCPServer
from everserve.sockets.datagrams import LARGEST, receive

if TYPE_CHECKING:
    from everserve.server.connection import Connection

__all__ = ["UDPServer"]


class UDPServer(TCPServer):
    """Serves datagrams; ``request`` is the pair ``(data, socket)``.

    ``max_packet_size`` (bytes, default 65,535: the largest there is) bounds what is received of a
    datagram. One that is longer is cut, and told: ``request.truncated``, ``truncated`` on the handler
    and the event ``Truncated``.
    """

    socket_type = socket.SOCK_DGRAM
    max_packet_size: int = LARGEST
    _keeps_socket: bool = False
    _last_words: LastWords | None = None

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

    @contextmanager
    def _replying_later(self, requests: tuple[Connection, ...], deadline: float) -> Iterator[None]:
        self._keeps_socket = bool(requests)
        try:
            yield
        finally:
            if self._keeps_socket:
                self._last_words = LastWords(
                    self.socket, requests, self._life.bell, self._watchdog, deadline
                )
                self._keeps_socket = False

    def _has_last_words(self) -> bool:
        return self._last_words is not None and self._last_words.of(self.socket)

    def _close_listener(self) -> None:
        if self._keeps_socket:
            return
        if self._last_words is not None:
            self._last_words.end()
        super()._close_listener()
