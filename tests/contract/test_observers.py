"""The contract: what observes a server, a subscriber or the log, never harms serving."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.contract.kinds import Client, Transport

from everserve.events import ServerEvent

MakeServer = Callable[..., Any]
MakeClient = Callable[[Any], Client]


class FullDisk(logging.Handler):
    """A handler of the program, which does not catch its own errors."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError(28, "No space left on device")


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = FullDisk()
    logging.getLogger("everserve").addHandler(handler)
    yield
    logging.getLogger("everserve").removeHandler(handler)


def fail(event: ServerEvent) -> None:
    raise SystemExit(f"cannot store {event}")


def echo_or_fail(handler: Any) -> None:
    line = handler.rfile.readline()
    handler.wfile.write(line)
    if line != b"ping\n":
        raise ValueError("must fail")


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_and_a_subscriber_that_raises(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(echo_or_fail)
    server.subscribe(fail)
    with server.running():
        for line in (b"fail\n", b"ping\n", b"fail\n", b"ping\n"):
            assert make_client(server).ask(line) == line


@pytest.mark.usefixtures("full_disk")
def test_deadlines_go_on(
    make_server: MakeServer, make_client: MakeClient, stream: Transport
) -> None:
    server = make_server(echo_or_fail, request_timeout=0.02)
    server.subscribe(fail)
    with server.running():
        for _ in range(2):
            make_client(server).end()
