"""``sockets.runs``: a batch is handled as if each handler were made by calling its class."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from tests.engines import loaded

from everserve.handlers.base import BaseRequestHandler

HandleAll = Callable[..., list[Any]]


class Recording(BaseRequestHandler):
    """``log`` has what was called, with the request."""

    log: list[Any]

    def handle(self) -> None:
        self.log.append(("handle", self.request, self.client_address, self.server))


@pytest.fixture(params=["native", "python"])
def handle_all(request: pytest.FixtureRequest) -> Iterator[HandleAll]:
    """Handles requests with a class of handlers; returns the errors."""
    parts = loaded(request.param)
    with parts.DatagramSocket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))

        def handle_all(handler: Any, *requests: Any) -> list[Any]:
            errors: list[Any] = []
            run = parts.DatagramRun(
                sock.exchange(lambda target: None),
                [(request, "peer") for request in requests],
                handler,
                "server",
                lambda *error: errors.append(error),
                lambda entry, request: True,
            )
            run.handle()
            assert run.left == 0
            assert run.count() == len(requests)
            assert run.request is run.address is None
            return errors

        yield handle_all


@pytest.fixture
def log() -> list[Any]:
    Recording.log = []
    return Recording.log


def test_a_handler_has_its_three_attributes(handle_all: HandleAll, log: list[Any]) -> None:
    assert handle_all(Recording, 1, 2) == []
    assert log == [("handle", 1, "peer", "server"), ("handle", 2, "peer", "server")]


@pytest.mark.parametrize("fails", [False, True])
def test_the_hooks_of_a_class(handle_all: HandleAll, log: list[Any], fails: bool) -> None:
    class Own(Recording):
        def setup(self) -> None:
            log.append("setup")

        def handle(self) -> None:
            super().handle()
            if fails:
                raise ValueError(self.request)

        def finish(self) -> None:
            log.append("finish")

    errors = handle_all(Own, 1)
    assert log == ["setup", ("handle", 1, "peer", "server"), "finish"]
    assert [(request, peer, str(error)) for request, peer, error in errors] == (
        [(1, "peer", "1")] if fails else []
    )


def test_finish_is_not_called_if_setup_fails(handle_all: HandleAll, log: list[Any]) -> None:
    class Own(Recording):
        def setup(self) -> None:
            raise ValueError("setup")

        def finish(self) -> None:
            log.append("finish")

    assert len(handle_all(Own, 1, 2)) == 2
    assert log == []


def test_an_error_of_finish_has_that_of_handle_as_its_context(
    handle_all: HandleAll, log: list[Any]
) -> None:
    class Own(Recording):
        def handle(self) -> None:
            raise ValueError("handle")

        def finish(self) -> None:
            raise ValueError("finish")

    ((_, _, error),) = handle_all(Own, 1)
    assert (str(error), str(error.__context__)) == ("finish", "handle")


def test_a_hook_that_the_instance_has_itself(handle_all: HandleAll, log: list[Any]) -> None:
    class Own(Recording):
        def handle(self) -> None:
            self.finish = lambda: log.append("finish")  # type: ignore[method-assign]

    assert handle_all(Own, 1) == []
    assert log == ["finish"]


def test_a_class_that_changes_meanwhile(handle_all: HandleAll, log: list[Any]) -> None:
    class Own(Recording):
        def handle(self) -> None:
            log.append(self.request)
            Own.setup = lambda self: log.append("setup")  # type: ignore[method-assign]

    assert handle_all(Own, 1, 2) == []
    assert log == [1, "setup", 2]


class Counted(type):
    made = 0

    def __call__(cls, *arguments: Any) -> Any:
        Counted.made += 1
        return super().__call__(*arguments)


class WithSlots(BaseRequestHandler):
    __slots__ = ("client_address", "request", "seen", "server")  # type: ignore[assignment]

    def handle(self) -> None:
        self.seen = self.request
        Recording.log.append(self.seen)


def test_classes_that_are_made_in_another_way(handle_all: HandleAll, log: list[Any]) -> None:
    class Initialized(Recording):
        def __init__(self, request: Any, client_address: Any, server: Any) -> None:
            super().__init__((request,), client_address, server)

    class Renewed(Recording):
        def __new__(cls, *arguments: Any) -> Any:
            log.append("new")
            return super().__new__(cls)

    class OfMeta(Recording, metaclass=Counted):
        pass

    class Setting(Recording):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, (name, value))

    def function(request: Any, client_address: Any, server: Any) -> None:
        log.append(request)

    Counted.made = 0
    for number, kind in enumerate((Initialized, Renewed, OfMeta, Setting, WithSlots, function)):
        assert handle_all(kind, number) == []
    assert Counted.made == 1
    assert log == [
        ("handle", (0,), "peer", "server"),
        "new",
        ("handle", 1, "peer", "server"),
        ("handle", 2, "peer", "server"),
        ("handle", ("request", 3), ("client_address", "peer"), ("server", "server")),
        4,
        5,
    ]


def test_what_an_abstract_class_cannot_do(handle_all: HandleAll) -> None:
    class Abstract(ABC, BaseRequestHandler):
        @abstractmethod
        def handle(self) -> None: ...

    ((_, _, error),) = handle_all(Abstract, 1)
    assert isinstance(error, TypeError)


VALUE: ContextVar[Any] = ContextVar("VALUE", default=None)


def test_a_variable_that_is_set_is_of_that_handler_alone(
    handle_all: HandleAll, log: list[Any]
) -> None:
    class Own(Recording):
        def handle(self) -> None:
            log.append(VALUE.get())
            if self.request == "set":
                VALUE.set(len(log))
            elif self.request == "reset":
                VALUE.reset(VALUE.set("for a moment"))

    VALUE.set("outer")
    assert handle_all(Own, "set", "", "reset", "set", "set", "") == []
    assert log == ["outer"] * 6
    assert VALUE.get() == "outer"
