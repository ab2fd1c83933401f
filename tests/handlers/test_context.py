"""``handlers.context``: the server's side of a handler, looked up at the first access."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from everserve.admission.cancellation import CancelReason
from everserve.admission.host import Host
from everserve.errors import TLSConfigError
from everserve.handlers.base import BaseRequestHandler
from everserve.handlers.context import HandlerContext


class FakeHost(Host):
    """The server's side, set by a test."""

    def __init__(self, connection: Any = None, *, draining: bool = False) -> None:
        self.connection = connection
        self.draining = draining
        self.asked: list[Any] = []

    def connection_of(self, request: Any) -> Any:
        self.asked.append(request)
        return self.connection

    def is_draining(self) -> bool:
        return self.draining

    def coalesces_writes(self) -> bool:
        return True

    def max_line(self) -> int | None:
        return 4096

    def start_tls(self, server: Any, request: Any, client_address: Any) -> Any:
        return ("secured", server, request, client_address)


def test_without_a_host_all_values_are_empty() -> None:
    context = HandlerContext(None, "request")
    assert (context.deadline(), context.cancelled()) == (None, None)
    assert context.coalesces_writes() is False
    assert context.max_line() is None
    assert context.peer("peer").address == "peer"
    with pytest.raises(TLSConfigError, match="needs a server of everserve"):
        context.start_tls(None, "peer")


def test_the_values_of_the_server() -> None:
    connection = SimpleNamespace(
        deadlines=SimpleNamespace(ends=float("inf")), missed=None, proxy=None, tls=None
    )
    host = FakeHost(connection)
    context = HandlerContext(host, "request")
    assert host.asked == ["request"]
    assert (context.deadline(), context.cancelled()) == (float("inf"), None)
    assert context.coalesces_writes() is True
    assert context.max_line() == 4096
    connection.missed = "idle_timeout"
    assert context.cancelled() is CancelReason.DEADLINE
    host.draining = True
    assert context.cancelled() is CancelReason.DRAINING


def test_the_peer_is_looked_up_once_and_again_after_a_handshake() -> None:
    context = HandlerContext(FakeHost(), "request")
    first = context.peer("peer")
    assert context.peer("peer") is first
    assert context.start_tls("server", "peer") == ("secured", "server", "request", "peer")
    assert context.peer("peer") is not first


def test_a_handler_makes_it_at_the_first_access() -> None:
    host = FakeHost()
    with socket.socket() as request:
        handler = BaseRequestHandler(request, "peer", SimpleNamespace(_everserve=host))
        assert "_everserve" not in vars(handler)
        assert handler.deadline is None
        assert handler.peer is handler.peer
        assert host.asked == [request]
        assert isinstance(vars(handler)["_everserve"], HandlerContext)


def test_a_handler_has_one_private_attribute() -> None:
    private = {
        name
        for kind in BaseRequestHandler.__mro__[:-1]
        for name in vars(kind)
        if name.startswith("_") and not name.endswith("__")
    }
    assert private == {"_everserve"}
