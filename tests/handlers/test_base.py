"""``handlers.base``: setup, handle, finish, in that order, while the handler is made."""

from __future__ import annotations

from typing import Any

import pytest

from everserve.handlers.base import BaseRequestHandler
from everserve.sockets.datagrams import Datagram


class Noted(BaseRequestHandler):
    """Records the order of its calls; raises in the one that the server names."""

    def __init__(self, request: Any, client_address: Any, server: Any) -> None:
        self.calls: list[str] = server
        super().__init__(request, client_address, server)

    def _note(self, name: str) -> None:
        self.calls.append(name)
        if name == self.request:
            raise ValueError(name)

    def setup(self) -> None:
        self._note("setup")

    def handle(self) -> None:
        self._note("handle")

    def finish(self) -> None:
        self._note("finish")


def test_the_order() -> None:
    calls: list[str] = []
    handler = Noted("request", "peer", calls)
    assert calls == ["setup", "handle", "finish"]
    assert (handler.request, handler.client_address, handler.server) == ("request", "peer", calls)


@pytest.mark.parametrize(
    ("raising", "order"),
    [
        ("setup", ["setup"]),
        ("handle", ["setup", "handle", "finish"]),
        ("finish", ["setup", "handle", "finish"]),
    ],
)
def test_finish_is_called_unless_setup_raised(raising: str, order: list[str]) -> None:
    calls: list[str] = []
    with pytest.raises(ValueError, match=raising):
        Noted(raising, "peer", calls)
    assert calls == order


def test_the_hooks_do_nothing_by_themselves() -> None:
    handler = BaseRequestHandler("request", "peer", "server")
    assert vars(handler) == {"request": "request", "client_address": "peer", "server": "server"}


def test_truncated() -> None:
    datagram = Datagram((b"", None))  # type: ignore[arg-type]
    assert BaseRequestHandler(datagram, "peer", None).truncated is False
    datagram.truncated = True
    assert BaseRequestHandler(datagram, "peer", None).truncated is True
    assert BaseRequestHandler("a stream", "peer", None).truncated is False


def test_a_handler_may_have_its_own_attribute_of_that_name() -> None:
    class Own(BaseRequestHandler):
        def setup(self) -> None:
            self.truncated: Any = "mine"

    assert Own("request", "peer", None).truncated == "mine"


def test_it_is_generic_in_its_request_and_server() -> None:
    class Typed(BaseRequestHandler[bytes, str]):
        pass

    assert Typed(b"request", "peer", "server").request == b"request"
