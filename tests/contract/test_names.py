"""The contract: a program may use its own names.

A subclass written for the standard library may use each name that everserve has and the standard
library lacks for its own purposes, and still works.
"""

from __future__ import annotations

import socketserver
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.clients import Background
from tests.contract.kinds import Client, Strategy, Transport, make_server_class

from everserve.combos import server_class
from everserve.lifecycle.state import ServerState
from everserve.process.run import run
from everserve.server.base import BaseServer
from everserve.server.group import ServerGroup

INSTANCE = {
    "server_address", "RequestHandlerClass", "socket", "request", "client_address", "server",
    "rfile", "wfile", "connection", "packet",
}  # fmt: skip


def names_of(*classes: type) -> set[str]:
    return {name for kind in classes for base in kind.__mro__ for name in vars(base)}


STANDARD = INSTANCE | names_of(
    *(kind for kind in vars(socketserver).values() if isinstance(kind, type))
)


def new_names(kind: type) -> list[str]:
    """The public names of ``kind`` that the standard library's module does not have."""
    return sorted(n for n in names_of(kind) - STANDARD if not n.startswith("_"))


def own(self: Any, *arguments: Any, **more: Any) -> Any:
    raise AssertionError("a method of the program's own was called")


class OnTheClass:
    """A method, or a value, in the body of the class."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, kind: type, names: list[str]) -> type:
        return type(kind.__name__, (kind,), dict.fromkeys(names, self.value))


class InInit(OnTheClass):
    """Set in ``__init__``, before and after that of the base."""

    def __call__(self, kind: type, names: list[str]) -> type:
        value = self.value

        def __init__(self: Any, *arguments: Any) -> None:
            use_the_names(self)
            kind.__init__(self, *arguments)  # type: ignore[misc]
            use_the_names(self)

        def use_the_names(self: Any) -> None:
            for name in names:
                setattr(self, name, value)

        return type(kind.__name__, (kind,), {"__init__": __init__})


WAYS = {
    "method": OnTheClass(own),
    "none": OnTheClass(None),
    "function in init": InInit(own),
    "none in init": InInit(None),
}


@pytest.fixture(params=WAYS)
def occupied(
    request: pytest.FixtureRequest, strategy: Strategy, transport: Transport
) -> tuple[type, type]:
    """A server and a handler that use all names for themselves."""
    occupy: Any = WAYS[request.param]

    def handle(handler: Any) -> None:
        handler.wfile.write(handler.rfile.readline())

    server = make_server_class(strategy, transport)
    handler = type("Handler", (transport.handler,), {"handle": handle})
    return occupy(server, new_names(server)), occupy(handler, new_names(handler))


@pytest.fixture
def server(occupied: tuple[type, type], tmp_path: Path, transport: Transport) -> Any:
    kind, handler = occupied
    return kind(transport.address(tmp_path), handler)


def test_it_serves(server: Any, make_client: Callable[[Any], Client]) -> None:
    with server:
        thread = Background(server.serve_forever, 3600)
        for _ in range(2):
            client = make_client(server)
            assert client.ask(b"ping\n") == b"ping\n"
            client.end()
        server.shutdown()
        thread.result()
        client = make_client(server)
        client.send(b"ping\n")
        server.handle_request()
        assert client.receive() == b"ping\n"
        client.end()


def test_it_runs_and_stops(
    server: Any, make_client: Callable[[Any], Client], strategy: Strategy
) -> None:
    def talk() -> None:
        client = make_client(server)
        assert client.ask(b"ping\n") == b"ping\n"
        client.end()
        BaseServer.stop(server)

    talkers: list[Background] = []
    report = run(ServerGroup([server]), on_ready=lambda: talkers.append(Background(talk)))
    talkers[0].result()
    assert (report.cut, report.unfinished) == ((), ())
    assert server._everserve.life.state is ServerState.STOPPED


def test_the_names_are_many() -> None:
    names = new_names(server_class("forks", "unix"))
    assert {"stop", "state", "connections", "tls", "admission_steps"} < set(names)
