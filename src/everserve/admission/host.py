"""What a handler may ask of the server that runs it.

A handler finds it behind the one private attribute of its server. A server of another kind, a mock say,
has none.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Host", "host_of_server"]


class Host:
    """The base of what stands behind a server: the server's side of a request."""

    def connection_of(self, request: Any) -> Any:
        """The entry among ``connections`` that ``request`` belongs to, or ``None``."""
        raise NotImplementedError

    def is_draining(self) -> bool:
        """True once a stop of the server has begun."""
        raise NotImplementedError

    def coalesces_writes(self) -> bool:
        """True if what a handler writes is to leave when it next waits."""
        raise NotImplementedError

    def start_tls(self, server: Any, request: Any, client_address: Any) -> Any:
        """Do a TLS handshake on ``request``; the socket to go on with."""
        raise NotImplementedError


def host_of_server(server: Any) -> Host | None:
    """What stands behind ``server``, if that is a server of everserve, or under one of its mix-ins."""
    host = getattr(server, "_everserve", None)
    return host if issubclass(type(host), Host) else None
