"""Run the regression tests against everserve, or against the standard library.

    pytest tests/defects --against stdlib -m "not new and not documented"

shows that each of them fails on the standard library's module. Tests marked ``new`` need an attribute
that it does not have; tests marked ``documented`` pass on both, and those marked ``repaired_in`` do so
from that version of Python on.
"""

from __future__ import annotations

import importlib
import selectors
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest
from tests.clients import LIMIT, Background, connect
from tests.defects.kinds import Echoes, Selects, Serve

MODULES = {"everserve": "everserve", "stdlib": "socketserver"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--against",
        choices=sorted(MODULES),
        default="everserve",
        help="the module that tests/defects is run against",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "new: asks for what the standard library does not have")
    config.addinivalue_line("markers", "documented: holds on the standard library too")
    config.addinivalue_line(
        "markers", "repaired_in(major, minor): holds on the standard library since that Python"
    )


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        repaired = item.get_closest_marker("repaired_in")
        if repaired is not None and sys.version_info >= repaired.args:
            item.add_marker("documented")


@pytest.fixture(scope="session")
def against(pytestconfig: pytest.Config) -> str:
    """``everserve`` or ``stdlib``."""
    return str(pytestconfig.getoption("--against", default="everserve"))


@pytest.fixture
def socketserver_module(against: str) -> ModuleType:
    """The module under test."""
    return importlib.import_module(MODULES[against])


@pytest.fixture
def limit(against: str, request: pytest.FixtureRequest) -> float:
    """The time limit in seconds; short for tests that are expected to hang."""
    hangs = against == "stdlib" and not request.node.get_closest_marker("documented")
    return 0.3 if hangs else LIMIT


@pytest.fixture
def Echo(socketserver_module: ModuleType) -> type:
    """A handler that sends back one message."""

    class Echo(socketserver_module.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(self.request.recv(100))

    return Echo


@pytest.fixture
def echoes(limit: float) -> Echoes:
    """True if a server at that address answers; raises what the client's socket raised."""

    def echoes(address: Any) -> bool:
        with connect(address, limit=limit) as client:
            client.sendall(b"ping")
            return client.recv(100) == b"ping"

    return echoes


@pytest.fixture
def selects(monkeypatch: pytest.MonkeyPatch) -> Selects:
    """Counts the wake-ups: a wait has ended if another one followed."""
    selects = Selects()
    original = selectors.PollSelector.select

    def select(self: Any, timeout: float | None = None) -> Any:
        selects.timeouts.append(timeout)
        selects.begun.set()
        return original(self, timeout)

    monkeypatch.setattr(selectors.PollSelector, "select", select, raising=False)
    return selects


@pytest.fixture
def serve(selects: Selects, limit: float) -> Iterator[Serve]:
    """``serve(server, poll_interval)``: serve in a thread. Returns once the server waits."""
    started: list[tuple[Any, Background]] = []

    def serve(server: Any, poll_interval: float = 0.05) -> Background:
        selects.begun.clear()
        thread = Background(server.serve_forever, poll_interval)
        started.append((server, thread))
        assert selects.begun.wait(limit)
        return thread

    yield serve
    for server, thread in started:
        server._BaseServer__shutdown_request = True  # shutdown() may be the part that does not work
        thread.join(limit)
        server.block_on_close = False
        with suppress(Exception):
            server.server_close()
