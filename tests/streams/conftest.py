"""Every test of the streams runs on both engines, and over each kind of socket that may wait."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from tests.engines import ENGINES, in_place

HOMES = {"native": "everserve.streams._stream", "python": "everserve.streams.stream"}


class OwnMethods(socket.socket):
    """Like TLS and wrappers: a stream must use its methods and not its descriptor."""

    def recv(self, *arguments: Any) -> bytes:
        raise AssertionError("makefile() would not call recv")

    def recv_into(self, buffer: Any, *rest: Any) -> int:
        count = super().recv_into(buffer, *rest)
        with memoryview(buffer) as view:
            view[:count] = bytes(view[:count]).swapcase()
        return count

    def sendall(self, data: Any, *rest: Any) -> None:
        super().sendall(bytes(data).swapcase(), *rest)


class Ends(NamedTuple):
    """The socket under test, the plain one at its other end, and the function that opens a stream."""

    ours: Any
    peer: socket.socket
    open: Callable[..., Any]
    kind: str


@pytest.fixture(params=ENGINES)
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The parts of one engine, put in place of the chosen one, and its streams."""
    parts = in_place(request.param, monkeypatch)
    parts.streams = importlib.import_module(HOMES[parts.name])
    return parts


@pytest.fixture
def hub(parts: Any) -> Iterator[Any]:
    errors: list[BaseException] = []
    made = parts.Hub(on_error=lambda _fiber, error: errors.append(error))
    yield made
    made.close()
    assert not errors


def connection() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname(), timeout=20)
        accepted, _address = listener.accept()
    return accepted, peer


@pytest.fixture(params=("plain", "methods", "fiber"))
def ends(request: pytest.FixtureRequest, parts: Any) -> Iterator[Ends]:
    """A connection whose near end is a plain socket, a subclass of one, or a FiberSocket."""
    accepted, peer = connection()
    ours: socket.socket = accepted
    if request.param == "methods":
        ours = OwnMethods(fileno=accepted.detach())
    elif request.param == "fiber":
        ours = parts.FiberSocket.adopt(accepted)
    yield Ends(ours, peer, parts.streams.open_stream, request.param)
    ours.close()
    peer.close()


@pytest.fixture
def fiber_ends(parts: Any) -> Iterator[Ends]:
    accepted, peer = connection()
    ours = parts.FiberSocket.adopt(accepted)
    yield Ends(ours, peer, parts.streams.open_stream, "fiber")
    ours.close()
    peer.close()
