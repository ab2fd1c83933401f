"""``server.datagramflow``: which batches need an account of each datagram."""

from __future__ import annotations

from typing import Any

import pytest
from tests.scenes import LOOPBACK

from everserve.admission.access import AccessRules
from everserve.combos import FiberUDPServer, ThreadingUDPServer
from everserve.handlers.base import BaseRequestHandler
from everserve.server.udp import UDPServer


class Handler(BaseRequestHandler):
    pass


def is_quick(server: Any) -> bool:
    quick: bool = server._everserve.acceptor._datagrams._is_quick(server)
    return quick


@pytest.mark.parametrize(
    ("kind", "quick"), [(UDPServer, True), (FiberUDPServer, True), (ThreadingUDPServer, False)]
)
def test_it_depends_on_the_strategy(kind: type[UDPServer], quick: bool) -> None:
    with kind(LOOPBACK, Handler) as server:
        assert is_quick(server) is quick


@pytest.mark.parametrize(
    ("options", "quick"),
    [
        ({"max_connections": 10}, True),
        ({"max_connections": 10, "overload": "refuse"}, False),
        ({"max_connections_per_peer": 10}, False),
        ({"access": AccessRules.parse("deny 192.0.2.0/24")}, False),
        ({"request_timeout": 1.0}, False),
        ({"verify_request": lambda self, request, peer: True}, False),
        ({"finish_request": lambda self, request, peer: None}, False),
        ({"close_request": lambda self, request: None}, False),
        ({"handle_error": lambda self, request, peer: None}, True),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_it_depends_on_the_options_and_hooks(options: dict[str, Any], quick: bool) -> None:
    with type("Own", (UDPServer,), options)(LOOPBACK, Handler) as server:
        assert is_quick(server) is quick


def test_a_hook_of_an_instance_and_a_subscriber_count_at_once() -> None:
    with UDPServer(LOOPBACK, Handler) as server:
        assert is_quick(server)
        unsubscribe = server.subscribe(lambda event: None)
        assert not is_quick(server)
        unsubscribe()
        assert is_quick(server)
        server.verify_request = lambda request, client_address: True  # type: ignore[method-assign]
        assert not is_quick(server)
