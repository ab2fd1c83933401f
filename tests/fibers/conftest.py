"""Every test runs on each engine: the compiled one if it was built, its reference, and the reference
without epoll: level-triggered, over `selectors`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.engines import ENGINES, in_place


@pytest.fixture(params=ENGINES)
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The parts of one engine, put in place of the chosen one."""
    return in_place(request.param, monkeypatch)


@pytest.fixture
def errors() -> list[BaseException]:
    """The exceptions of fibers; a test that expects some clears the list."""
    return []


@pytest.fixture
def hub(parts: Any, errors: list[BaseException]) -> Iterator[Any]:
    made = parts.Hub(on_error=lambda _fiber, error: errors.append(error))
    yield made
    made.close()
    assert not errors


@pytest.fixture
def run(hub: Any, errors: list[BaseException]) -> Callable[..., Any]:
    """Run a function as a fiber until it ends; returns its result, or raises its exception."""

    def runner(function: Callable[..., Any], *arguments: Any) -> Any:
        results: list[Any] = []
        fiber = hub.spawn(lambda: results.append(function(*arguments)))
        assert fiber.join(20), "the fiber did not end"
        if errors:
            raise errors.pop()
        return results[0]

    return runner


@pytest.fixture
def pair(parts: Any) -> Iterator[tuple[Any, socket.socket]]:
    """A FiberSocket and the plain socket at its other end, over TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        accepted, _address = listener.accept()
    ours = parts.FiberSocket.adopt(accepted)
    peer.settimeout(20)
    yield ours, peer
    ours.close()
    peer.close()
