"""Messages that an executor handles: what their connections wait in, and how they end."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from tests.clients import LIMIT, Background
from tests.executors.functions import AgainSquares, Squares, Twice
from tests.scenes import EventRecorder

import everserve
from everserve.errors import LostWorkerError
from everserve.events import DeadlineMissed, Failed, WorkerLost
from everserve.messages import LineRequestHandler

WORDS = pytest.mark.parametrize("concurrency", ["fibers", "pool"])


class Gated(LineRequestHandler[Any, Any]):
    """Waits for the gate of its test."""

    gate: threading.Event
    entered: threading.Semaphore

    def handle_message(self, message: bytes) -> Any:
        if message == b"stop":
            report = self.server.stop(LIMIT)
            return b"%d left" % len(report.unfinished)
        if message == b"wait":
            self.entered.release()
            assert self.gate.wait(LIMIT)
        return message


@pytest.fixture
def gated() -> type[Gated]:
    return type("Own", (Gated,), {"gate": threading.Event(), "entered": threading.Semaphore(0)})


def make(handler: Any, concurrency: Any, executor: Any, **options: Any) -> Any:
    return everserve.make_server(
        handler, "tcp://127.0.0.1:0", concurrency=concurrency, executor=executor, **options
    )


@WORDS
def test_a_connection_holds_no_worker_of_a_pool_meanwhile(
    concurrency: Any, gated: type[Gated]
) -> None:
    options = {"max_workers": 1, "max_connections": 5} if concurrency == "pool" else {}
    server = make(gated, concurrency, "threads:5", **options)
    with server.running(grace=LIMIT) as address:
        clients = [socket.create_connection(address, LIMIT) for _ in range(5)]
        for client in clients:
            client.sendall(b"wait\nnext\n")
        for _ in clients:
            assert gated.entered.acquire(timeout=LIMIT)
        gated.gate.set()
        for client in clients:
            with client, client.makefile("rb") as lines:
                assert [lines.readline(), lines.readline()] == [b"wait\n", b"next\n"]


@WORDS
def test_a_deadline_ends_the_wait_for_a_message(concurrency: Any, gated: type[Gated]) -> None:
    recorder = EventRecorder()
    server = make(gated, concurrency, "threads:1", request_timeout=0.1)
    server.subscribe(recorder)
    with server.running() as address, socket.create_connection(address, LIMIT) as client:
        client.sendall(b"wait\n")
        assert client.recv(100) == b""
        recorder.wait_for(DeadlineMissed)
        recorder.wait_for(Failed)  # though the message still runs
        gated.gate.set()


@WORDS
def test_a_stop_does_not_wait_longer_than_its_grace(concurrency: Any, gated: type[Gated]) -> None:
    server = make(gated, concurrency, "threads:1")
    with server.running() as address, socket.create_connection(address, LIMIT) as client:
        client.sendall(b"wait\n")
        assert gated.entered.acquire(timeout=LIMIT)
        report = server.stop(0.05)
        assert len(report.cut) == 1
        assert not report.unfinished
        gated.gate.set()


@WORDS
def test_a_stop_waits_for_a_message(concurrency: Any, gated: type[Gated]) -> None:
    server = make(gated, concurrency, "threads:1")
    with server.running() as address, socket.create_connection(address, LIMIT) as client:
        client.sendall(b"wait\n")
        assert gated.entered.acquire(timeout=LIMIT)
        stopping = Background(server.stop, LIMIT)
        gated.gate.set()
        assert client.recv(100) == b"wait\n"
        assert not stopping.result().cut


@WORDS
def test_a_message_may_stop_its_server(concurrency: Any, gated: type[Gated]) -> None:
    server = make(gated, concurrency, "threads:1")
    with server.running() as address, socket.create_connection(address, LIMIT) as client:
        client.sendall(b"stop\n")
        assert client.recv(100) == b"1 left\n"


def test_a_reply_after_the_stop_is_waited_for() -> None:
    class Stops(LineRequestHandler[Any, Any]):
        def handle_message(self, message: bytes) -> Any:
            report = self.server.stop(LIMIT)
            serving.join(0.2)  # it would end in half of that
            return b"%d left, serving: %d" % (len(report.unfinished), serving.is_alive())

    server = make(Stops, "fibers", "threads:1")
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    with socket.create_connection(server.server_address, LIMIT) as client:
        client.sendall(b"stop\n")
        assert client.recv(100) == b"1 left, serving: 1\n"
        assert client.recv(100) == b""
    serving.join(LIMIT)
    assert not serving.is_alive()


@WORDS
def test_an_executor_of_the_program_is_left_open(concurrency: Any, gated: type[Gated]) -> None:
    with ThreadPoolExecutor(1) as executor:
        server = make(gated, concurrency, executor)
        for _ in range(2):  # a server may serve again
            serving = threading.Thread(target=server.serve_forever)
            serving.start()
            with socket.create_connection(server.server_address, LIMIT) as client:
                client.sendall(b"a\n")
                assert client.recv(100) == b"a\n"
            server.shutdown()
            serving.join()
        server.server_close()
        assert executor.submit(int, "1").result(LIMIT) == 1


def test_datagrams_and_objects() -> None:
    for concurrency in ("fibers", "pool"):
        server = everserve.make_server(
            Twice, "udp://127.0.0.1:0", concurrency=concurrency, executor="threads:1"
        )
        with server.running() as address:
            with socket.socket(type=socket.SOCK_DGRAM) as client:
                client.settimeout(LIMIT)
                client.sendto(b'"ab"\n', address)
                assert client.recv(100) == b'"abab"\n'


HUNG = """
import socket, threading
import everserve

entered = threading.Event()

class Hung(everserve.LineRequestHandler):
    def handle_message(self, line):
        entered.set()
        threading.Event().wait()

server = everserve.make_server(Hung, "tcp://127.0.0.1:0", executor="threads:1")
with server.running(grace=0.01) as address:
    client = socket.create_connection(address)
    client.sendall(b"a\\n")
    entered.wait(20)
print("left")
"""


@pytest.mark.usefixtures("unmeasured")
def test_a_message_without_an_end_keeps_no_program() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HUNG], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr


# -- real processes --------------------------------------------------------------------------------


def _kill(path: Path, wait: Callable[[], object]) -> None:
    """Kill the process that runs the message of that file, once it does."""
    while not path.exists():
        wait()
    os.kill(int(path.read_text()), signal.SIGKILL)


@WORDS
@pytest.mark.parametrize("handler", [AgainSquares, Squares])
@pytest.mark.usefixtures("unmeasured")
def test_a_worker_is_killed_under_load(concurrency: Any, handler: Any, tmp_path: Path) -> None:
    recorder = EventRecorder()
    server = make(handler, concurrency, "processes:2")
    server.subscribe(recorder)
    place = tmp_path / "place"
    with server.running() as address:
        victim, other = (socket.create_connection(address, LIMIT) for _ in range(2))
        with victim, other, other.makefile("rb") as lines:
            victim.sendall(b"%s 3\n" % str(place).encode())
            numbers = itertools.count()

            def ask() -> None:
                number = next(numbers)
                other.sendall(b"%d\n" % number)
                assert int(lines.readline()) == number**2

            _kill(place, ask)
            for _ in range(20):  # the others never notice
                ask()
            assert victim.recv(100) == (b"9\n" if handler.idempotent else b"")
            (lost,) = recorder.wait_for(WorkerLost)
            assert lost.again is handler.idempotent
    if not handler.idempotent:
        (failed,) = recorder.of(Failed)
        assert isinstance(failed.error, LostWorkerError)


@pytest.mark.usefixtures("unmeasured")
def test_a_process_pool_of_the_program(tmp_path: Path) -> None:
    recorder = EventRecorder()
    place = tmp_path / "place"
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        server = make(AgainSquares, "fibers", executor)
        server.subscribe(recorder)
        with server.running() as address, socket.create_connection(address, LIMIT) as client:
            client.sendall(b"4\n")
            assert client.recv(100) == b"16\n"
            client.sendall(b"%s 3\n" % str(place).encode())
            _kill(place, lambda: None)
            assert client.recv(100) == b""  # the pool is broken, and not ours to be made anew
    assert [event.again for event in recorder.of(WorkerLost)] == [False]
    (failed,) = recorder.of(Failed)
    assert "ProcessPoolExecutor: no worker has finished a message" in str(failed.error)
