"""The operations of a server that its handlers may use.

A handler reaches them through the one private attribute of its server. A server of another kind, such
as a mock, has none.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Host", "host_of_server"]


class Host:
    """The server's side of a request. The runtime of a server implements it."""

    @property
    def execution(self) -> Any:
        """The ``Execution`` that runs messages; ``None``: they run where their connection does."""
        raise NotImplementedError

    def connection_of(self, request: Any) -> Any:
        """The entry among ``connections`` that ``request`` belongs to, or ``None``."""
        raise NotImplementedError

    def is_draining(self) -> bool:
        """True once a stop of the server has begun."""
        raise NotImplementedError

    def coalesces_writes(self) -> bool:
        """True if the bytes that a handler writes are sent when it next waits."""
        raise NotImplementedError

    def max_line(self) -> int | None:
        """The bytes that a line may have where the handler does not say so; ``None``: any number."""
        raise NotImplementedError

    def start_tls(self, server: Any, request: Any, client_address: Any) -> Any:
        """Do a TLS handshake on ``request``. Returns the socket to use from then on."""
        raise NotImplementedError

    def parking_of(self, server: Any, connection: Any, request: Any) -> Any:
        """Where the connection may wait between messages; ``None``: where its handler runs."""
        raise NotImplementedError

    def conversation_ended(self, conversation: Any, error: BaseException | None) -> None:
        """End the connection of a conversation that was parked before, as the flow ends any other."""
        raise NotImplementedError

    def give_key(self, connection: Any, key: Any) -> None:
        """Have ``server.connections[key]`` find the connection."""
        raise NotImplementedError

    def forget_key(self, connection: Any) -> None:
        """Undo ``give_key``."""
        raise NotImplementedError


def host_of_server(server: Any) -> Host | None:
    """The ``Host`` of ``server``; ``None`` if it has neither a class nor a mix-in of everserve."""
    host = getattr(server, "_everserve", None)
    return host if issubclass(type(host), Host) else None
