"""The name of a server, for events and logs: ``Upper on tcp://127.0.0.1:9999``."""

from __future__ import annotations

from typing import Any

from everserve.addresses import Address

__all__ = ["name_of"]


def name_of(server: Any) -> str:
    """The name of a server, by its handler class and where it listens."""
    handler = getattr(server, "RequestHandlerClass", None)
    name = getattr(handler, "__name__", None) or type(handler).__name__
    try:
        return f"{name} on {Address.of(server.socket)}"
    except Exception:  # not bound, closed, or made by a program in its own way
        return f"{name} on {getattr(server, 'server_address', None)!r}"
