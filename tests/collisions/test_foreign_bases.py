"""A server class may be something else as well: both sides work, whichever base comes first."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import socket
import threading
import unittest
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.clients import Background
from tests.collisions.kinds import ANSWER, FORKS_AMONG_THREADS, LIMIT, QUESTION, Kind, kinds

pytestmark = pytest.mark.filterwarnings(FORKS_AMONG_THREADS)

Ask = Callable[[], bytes]


# -- a thread ------------------------------------------------------------------------------------


class ServingThread(threading.Thread):
    """A server in its own thread, as in many programs."""

    def run(self) -> None:
        program: Any = self
        program.serve_forever(program.kind.poll_interval)


def start_and_join(server: Any, ask: Ask) -> None:
    server.daemon = True
    server.start()
    assert ask() == ANSWER
    Background(server.shutdown).result(LIMIT)
    server.join(LIMIT)
    assert not server.is_alive()


# -- a process -----------------------------------------------------------------------------------


class ServingProcess(multiprocessing.get_context("fork").Process):  # type: ignore[misc, name-defined]
    """A server in its own process, which ends when ``go`` becomes readable."""

    def run(self) -> None:
        thread = Background(self.serve_forever, self.kind.poll_interval)
        os.read(self.go[0], 1)
        self.shutdown()
        thread.result(LIMIT)
        self.server_close()


def start_and_join_process(server: Any, ask: Ask) -> None:
    server.go = os.pipe()
    try:
        server.start()
        assert ask() == ANSWER
        os.write(server.go[1], b"x")
        server.join(LIMIT)
        assert server.exitcode == 0
    finally:
        _end(server)


def _end(server: Any) -> None:
    if server.is_alive():
        server.kill()
        server.join(LIMIT)
    for descriptor in server.go:
        os.close(descriptor)
    server.close()


# -- a test case ---------------------------------------------------------------------------------


class ServingCase(unittest.TestCase):
    """A server that tests itself."""

    __test__ = False  # for the servers of this module to run, not for the runner of the tests

    def runTest(self) -> None:
        program: Any = self
        self.addCleanup(program.asked.append, "cleaned up")
        with program.kind.serving(program):
            program.asked.append(program.ask())
        with self.subTest("the answer"):
            assert program.asked == [ANSWER]


def run_as_test(server: Any, ask: Ask) -> None:
    server.asked = []
    server.ask = ask
    result = server.run()
    assert result.wasSuccessful(), result.errors + result.failures
    assert server.asked == [ANSWER, "cleaned up"]


# -- a log handler -------------------------------------------------------------------------------


class ServingLog(logging.Handler):
    """A server that keeps the log lines."""

    def emit(self, record: logging.LogRecord) -> None:
        program: Any = self
        vars(program).setdefault("lines", []).append(self.format(record))


def log_a_line(server: Any, ask: Ask) -> None:
    server.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    with server.kind.serving(server):
        assert ask() == ANSWER
        server.handle(logging.LogRecord("a", logging.INFO, __file__, 1, "hello", None, None))
    server.flush()
    server.close()
    assert server.lines == ["INFO hello"]


# -- an asyncio protocol -------------------------------------------------------------------------


class ServingProtocol(asyncio.Protocol):
    """A server that is the client of another one."""

    def data_received(self, data: bytes) -> None:
        vars(self).setdefault("received", []).append(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        vars(self)["lost"].set()


async def receive(server: Any, sock: socket.socket) -> None:
    server.lost = asyncio.Event()
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(lambda: server, sock=sock)
    assert protocol is server
    await asyncio.wait_for(server.lost.wait(), LIMIT)
    transport.close()


def receive_as_protocol(server: Any, ask: Ask) -> None:
    peer, own = socket.socketpair()
    with server.kind.serving(server), peer:
        assert ask() == ANSWER
        peer.sendall(QUESTION)
        peer.shutdown(socket.SHUT_WR)
        own.setblocking(False)
        asyncio.run(receive(server, own))
    assert b"".join(server.received) == QUESTION


# -- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Foreign:
    """Another base of a server class, and its use."""

    base: Any
    use: Callable[[Any, Ask], None]


FOREIGN = {
    "thread": Foreign(ServingThread, start_and_join),
    "process": Foreign(ServingProcess, start_and_join_process),
    "test": Foreign(ServingCase, run_as_test),
    "log": Foreign(ServingLog, log_a_line),
    "protocol": Foreign(ServingProtocol, receive_as_protocol),
}


def make(kind: Kind, foreign: Foreign, order: str, folder: Path) -> Any:
    """A server of that kind which is also a ``foreign``, constructed in the order of its bases."""
    bases = (foreign.base, kind.server_class)
    if order == "server first":
        bases = bases[::-1]

    class Program(*bases):  # type: ignore[misc]
        def __init__(self) -> None:
            self.kind = kind
            for base in bases:
                if base is foreign.base:
                    base.__init__(self)
                else:
                    base.__init__(self, kind.address(folder), kind.handler())

    return Program()


@pytest.mark.parametrize("order", ["foreign first", "server first"])
@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("kind", kinds())
def test_a_server_that_is_something_else_as_well(
    kind: Kind, name: str, order: str, folder: Path
) -> None:
    with make(kind, FOREIGN[name], order, folder) as server:

        def ask() -> bytes:
            return kind.ask(server, folder)

        FOREIGN[name].use(server, ask)
    assert server.socket.fileno() == -1


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("kind", [kind for kind in kinds() if kind.values[0].transport == "tcp"])
def test_a_server_that_has_served_before(kind: Kind, name: str, folder: Path) -> None:
    with make(kind, FOREIGN[name], "foreign first", folder) as server:

        def ask() -> bytes:
            return kind.ask(server, folder)

        with kind.serving(server):
            assert ask() == ANSWER
        FOREIGN[name].use(server, ask)


@pytest.mark.parametrize("kind", kinds())
def test_a_thread_with_the_constructors_in_the_other_order(kind: Kind, folder: Path) -> None:
    """The server is made first, although the thread is the first base: a common pattern."""

    class Program(ServingThread, kind.server_class):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.kind = kind
            kind.server_class.__init__(self, kind.address(folder), kind.handler())
            threading.Thread.__init__(self)

    with Program() as server:
        start_and_join(server, lambda: kind.ask(server, folder))
