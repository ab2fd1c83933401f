"""The contract: what `everserve.fibers` offers works in the plain handlers of every strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.clients import LIMIT
from tests.contract.kinds import Client, Transport

from everserve import fibers

pytestmark = pytest.mark.usefixtures("plain")

MakeServer = Callable[..., Any]
MakeClient = Callable[[Any], Client]


def work(handler: Any) -> None:
    """One code for all strategies: a lock, a condition, a helper, and a wait that has an end."""
    changed = fibers.Condition(fibers.Lock())
    got: list[bytes] = []

    def read() -> None:
        line = handler.rfile.readline()
        with changed:
            got.append(line)
            changed.notify()

    helper = fibers.spawn(read)
    with fibers.Timeout(LIMIT), changed:
        changed.wait_for(lambda: got)
    helper.join(LIMIT)
    try:
        with fibers.RLock(), fibers.Timeout(0.01):
            fibers.Event().wait()
    except fibers.FiberTimeout:
        got.append(b"late ")
    handler.wfile.write(b"".join(reversed(got)))


def test_the_tools_of_fibers(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server(work)
    with server.running():
        assert make_client(server).ask(b"hello\n") == b"late hello\n"


def read_in_time(handler: Any) -> None:
    try:
        with fibers.Timeout(0.01):
            handler.rfile.readline()
    except fibers.FiberTimeout:
        handler.wfile.write(b"late\n")
    handler.wfile.write(handler.rfile.readline())


def test_a_timeout_ends_a_read_and_loses_nothing(
    make_server: MakeServer, make_client: MakeClient, stream: Transport
) -> None:
    server = make_server(read_in_time)
    with server.running():
        client = make_client(server)
        client.send(b"hel")
        assert client.receive() == b"late\n"
        assert client.ask(b"lo\n") == b"hello\n"
