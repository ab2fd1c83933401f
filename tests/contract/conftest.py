"""The contract of all servers, for every strategy and every transport."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.kinds import (
    STRATEGIES,
    TRANSPORTS,
    Client,
    Gate,
    Record,
    Strategy,
    Transport,
    make_handler,
    make_server_class,
)
from tests.orders import OrderCheck
from tests.scenes import EventRecorder


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test over both tables, or over the rows that it concerns."""
    names = metafunc.fixturenames
    if "strategy" in names:
        strategies = [s for s in STRATEGIES if s.concurrent or "concurrent" not in names]
        strategies = [s for s in strategies if not s.awaits or "plain" not in names]
        if "executed" in names:
            strategies = [s for s in strategies if s.takes_executor]
        params = [pytest.param(s, id=s.title or s.name, marks=s.marks) for s in strategies]
        metafunc.parametrize("strategy", params, indirect=True)
    if "transport" in names:
        transports = [t for t in TRANSPORTS if t.is_stream or "stream" not in names]
        if "executed" in names:
            transports = [t for t in transports if t.name in ("tcp4", "udp4")]
        params = [pytest.param(t, id=t.name) for t in transports]
        metafunc.parametrize("transport", params, indirect=True)


@pytest.fixture
def strategy(request: pytest.FixtureRequest) -> Strategy:
    return request.param


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> Transport:
    return request.param


@pytest.fixture
def stream(transport: Transport) -> Transport:
    """The transport, only streams."""
    return transport


@pytest.fixture
def concurrent(strategy: Strategy) -> Strategy:
    """The strategy, only those that run several requests at a time."""
    return strategy


@pytest.fixture
def plain(strategy: Strategy) -> Strategy:
    """The strategy, only with handlers that are no coroutines."""
    return strategy


@pytest.fixture
def executed(strategy: Strategy) -> Strategy:
    """The strategy, only those whose messages an executor may handle."""
    return strategy


@pytest.fixture
def make_server(
    strategy: Strategy, transport: Transport, tmp_path: Path
) -> Iterator[Callable[..., Any]]:
    """``make_server(handle, **attributes)``: a server whose handlers call ``handle(handler)``."""
    servers: list[Any] = []
    checks: list[OrderCheck] = []

    def make(handle: Callable[[Any], object], **attributes: Any) -> Any:
        handler = make_handler(strategy, transport, handle)
        server = make_server_class(strategy, transport, **attributes)(
            transport.address(tmp_path), handler
        )
        servers.append(server)
        checks.append(OrderCheck())
        server.subscribe(checks[-1])
        return server

    yield make
    for server in servers:
        server.server_close()
    assert [check.violations for check in checks] == [[]] * len(checks)


@pytest.fixture
def make_client(transport: Transport, tmp_path: Path) -> Iterator[Callable[[Any], Client]]:
    """``make_client(server)``: a connected client, closed at the end."""
    clients: list[Client] = []
    numbers = itertools.count()

    def make(server: Any) -> Client:
        clients.append(Client(server, transport, tmp_path, next(numbers)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def gate(strategy: Strategy) -> Iterator[Gate]:
    gate = Gate(strategy)
    yield gate
    gate.close()


@pytest.fixture
def record() -> Iterator[Record]:
    record = Record()
    yield record
    record.close()


@pytest.fixture
def recorder() -> EventRecorder:
    return EventRecorder()
