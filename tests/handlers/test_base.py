"""``handlers.base``: setup, handle, finish, in that order, while the handler is made."""

from __future__ import annotations

import socket
import sys
import types
import typing
from typing import Any, Generic, TypeVar

import pytest

from everserve.handlers.base import BaseRequestHandler
from everserve.handlers.datagram import DatagramRequestHandler
from everserve.handlers.stream import StreamRequestHandler
from everserve.server.base import BaseServer
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


# -- types -------------------------------------------------------------------------------------

KINDS = [BaseRequestHandler, StreamRequestHandler, DatagramRequestHandler]
ItemT = TypeVar("ItemT")


def test_it_is_generic_in_its_request_and_server() -> None:
    class Typed(BaseRequestHandler[bytes, str]):
        pass

    assert Typed(b"request", "peer", "server").request == b"request"


@pytest.mark.parametrize("kind", KINDS)
def test_the_parameters_are_for_type_checkers_alone(kind: Any) -> None:
    assert kind[socket.socket, BaseServer] is kind
    assert Generic not in kind.__mro__
    assert kind.__mro__[-1] is object


@pytest.mark.parametrize("kind", KINDS)
def test_its_bases_may_be_replaced(kind: Any) -> None:
    class Handler(kind):  # type: ignore[misc]
        pass

    class Fake:
        def __init__(self, *arguments: Any) -> None:
            self.arguments = arguments

    Handler.__bases__ = (Fake,)  # as tests of handlers do, to make one without a connection
    assert Handler(1, 2, 3).arguments == (1, 2, 3)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", [*KINDS, StreamRequestHandler[socket.socket, BaseServer]])
def test_a_handler_may_be_generic_of_its_own(kind: Any, first: bool) -> None:
    bases = (Generic[ItemT], kind) if first else (kind, Generic[ItemT])
    handler: Any = types.new_class("Handler", bases)
    assert handler.__parameters__ == (ItemT,)
    assert typing.get_origin(handler[int]) is handler
    assert typing.get_args(handler[int]) == (int,)
    concrete = types.new_class("Concrete", (handler[int],))
    assert concrete.__mro__[1] is handler


@pytest.mark.skipif(sys.version_info < (3, 12), reason="its syntax is that of Python 3.12")
def test_a_handler_may_have_type_parameters() -> None:
    scope: dict[str, Any] = {"StreamRequestHandler": StreamRequestHandler}
    exec("class Handler[T](StreamRequestHandler): pass", scope)
    handler = scope["Handler"]
    assert typing.get_args(handler[int]) == (int,)


def test_a_handler_may_say_itself_what_its_parameters_are() -> None:
    class Handler(BaseRequestHandler):
        def __class_getitem__(cls, item: Any) -> Any:
            return item

    assert Handler["mine"] == "mine"
