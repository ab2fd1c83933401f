"""``concurrency.pool``: requests in a bounded number of threads."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any

import pytest
from tests.clients import LIMIT, Background, ask, connect, read_all, serving
from tests.scenes import LOOPBACK, Echo, EventRecorder, Gate, Held

from everserve.combos import ThreadPoolTCPServer, ThreadPoolUDPServer
from everserve.events import Accepted, Finished, Opened, Refused
from everserve.handlers.base import BaseRequestHandler
from everserve.mixins import ThreadPoolMixIn


def test_the_defaults() -> None:
    assert ThreadPoolMixIn.max_workers == 64
    assert ThreadPoolMixIn.max_connections is None
    assert ThreadPoolMixIn.worker_idle_timeout == 10
    assert ThreadPoolMixIn.daemon_threads is True
    assert ThreadPoolMixIn.block_on_close is True


class Two(ThreadPoolTCPServer):
    max_workers = 2


def test_the_excess_waits_in_the_kernels_queue() -> None:
    server, recorder = Two(LOOPBACK, Held), EventRecorder()
    server.subscribe(recorder)
    with serving(server) as address:
        clients = [connect(address) for _ in range(5)]
        recorder.wait_for(Opened, 2)
        assert len(recorder.of(Accepted)) == 2
        assert len(server.connections) == 2
        for client in clients:
            client.sendall(b"go on")
        for client in clients:
            assert read_all(client) == b"readybye"
            client.close()
        recorder.wait_for(Finished, 5)


def test_with_more_connections_the_excess_waits_here() -> None:
    server, recorder = Two(LOOPBACK, Held), EventRecorder()
    server.max_connections = 4
    server.subscribe(recorder)
    with serving(server) as address:
        clients = [connect(address) for _ in range(5)]
        recorder.wait_for(Accepted, 4)
        recorder.wait_for(Opened, 2)
        assert len(recorder.of(Opened)) == 2
        for client in clients:
            client.sendall(b"go on")
        for client in clients:
            assert read_all(client) == b"readybye"
            client.close()


def test_a_stop_also_cuts_waiting_requests() -> None:
    gate = Gate()
    server, recorder = Two(LOOPBACK, gate), EventRecorder()
    server.max_connections = 3
    server.subscribe(recorder)
    thread = Background(server.serve_forever)
    clients = [connect(server.server_address) for _ in range(3)]
    recorder.wait_for(Accepted, 3)
    recorder.wait_for(Opened, 2)
    report = server.stop(0)
    assert (len(report.cut), len(report.unfinished)) == (3, 2)
    for client in clients:
        assert client.recv(1) == b""
        client.close()
    gate.opened.set()
    thread.result()


def test_a_stop_without_requests() -> None:
    server = ThreadPoolTCPServer(LOOPBACK, Echo)
    with server.running():
        pass
    untouched = ThreadPoolTCPServer(LOOPBACK, Echo)
    untouched._everserve.strategy.cut(untouched, ())
    untouched.server_close()


def test_handle_request_waits_for_room() -> None:
    class One(ThreadPoolTCPServer):
        max_workers = 1

    with One(LOOPBACK, Held) as server:
        with connect(server.server_address) as first, connect(server.server_address) as second:
            server.handle_request()
            assert first.recv(5) == b"ready"
            turn = Background(server.handle_request)
            first.sendall(b"go on")
            assert read_all(first) == b"bye"
            turn.result()
            assert second.recv(5) == b"ready"
            second.sendall(b"go on")
            assert read_all(second) == b"bye"


def test_no_thread_left_closes_the_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with ThreadPoolTCPServer(LOOPBACK, Echo) as server:
        with connect(server.server_address) as client:
            monkeypatch.setattr(threading.Thread, "start", fail)
            server.handle_request()
            assert client.recv(1) == b""
    assert "can't start new thread" in caplog.text


def test_it_serves_again_after_a_close_of_the_pool_alone() -> None:
    with ThreadPoolTCPServer(LOOPBACK, Echo) as server:
        server._everserve.strategy._workers().close(wait=True)
        thread = Background(server.handle_request)
        assert ask(server.server_address) == b"ping"
        thread.result()


def test_on_the_standard_librarys_server_the_loop_waits_for_a_place() -> None:
    class One(ThreadPoolMixIn, socketserver.TCPServer):  # type: ignore[misc]
        max_workers = 1

    with serving(One(LOOPBACK, Held), 0.01) as address:
        with connect(address) as first, connect(address) as second:
            assert first.recv(5) == b"ready"
            for client in (first, second):
                client.sendall(b"go on")
            assert read_all(first) == b"bye"
            assert read_all(second) == b"readybye"


@pytest.mark.parametrize("on", ["class", "instance"])
def test_closing_does_not_wait_for_threads_that_the_program_made_daemons(on: str) -> None:
    class Daemons(ThreadPoolTCPServer):
        if on == "class":
            daemon_threads = True

    server, recorder = Daemons(LOOPBACK, Held), EventRecorder()
    if on == "instance":
        server.daemon_threads = True
    server.subscribe(recorder)
    with serving(server) as address:
        client = connect(address)
        recorder.wait_for(Opened)
    assert len(server.connections) == 1
    with client:
        client.sendall(b"go on")
        assert read_all(client) == b"readybye"
    recorder.wait_for(Finished)


def test_another_accept_loop_sees_its_shutdown_while_all_workers_are_busy() -> None:
    class Own(ThreadPoolMixIn, socketserver.TCPServer):
        max_workers = 1
        daemon_threads = True
        serve_forever = socketserver.TCPServer.serve_forever
        shutdown = socketserver.TCPServer.shutdown

    gate = Gate()
    server = Own(LOOPBACK, gate)
    serving = Background(server.serve_forever, 0.01)
    first, second = (connect(server.server_address) for _ in range(2))
    assert gate.entered.acquire(timeout=LIMIT)
    Background(server.shutdown).result()
    serving.result()
    gate.opened.set()
    server.server_close()
    for client in (first, second):
        client.close()


# -- the order of a peer -----------------------------------------------------------------------


class InTurn(BaseRequestHandler):
    """Notes its datagram when it begins, and again when a test has let it go on."""

    notes: SimpleQueue[bytes]
    go_on: threading.Semaphore

    def handle(self) -> None:
        self.notes.put(self.request[0])
        assert self.go_on.acquire(timeout=LIMIT)
        self.notes.put(self.request[0].upper())


class Scene:
    """A pool for datagrams, and two peers."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.recorder = EventRecorder()
        self.notes: SimpleQueue[bytes] = SimpleQueue()
        self.go_on = threading.Semaphore(0)

    def serve(self, base: Any = ThreadPoolUDPServer, **attributes: Any) -> Any:
        handler = type("Handler", (InTurn,), {"notes": self.notes, "go_on": self.go_on})
        self.server = type("Server", (base,), attributes)(LOOPBACK, handler)
        self.server.subscribe(self.recorder)
        self.stack.enter_context(serving(self.server))
        return self.server

    def peer(self) -> socket.socket:
        client = self.stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        client.connect(self.server.server_address)
        return client

    def noted(self, count: int) -> list[bytes]:
        return [self.notes.get(timeout=LIMIT) for _ in range(count)]


@pytest.fixture
def scene() -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(stack)


class StandardPool(ThreadPoolMixIn, socketserver.UDPServer):
    """A server of the standard library."""


@pytest.mark.parametrize("base", [ThreadPoolUDPServer, StandardPool])
def test_datagrams_of_a_peer_are_not_overtaken(scene: Scene, base: Any) -> None:
    scene.serve(base)
    one, other = scene.peer(), scene.peer()
    for data in (b"a", b"b", b"c"):
        one.send(data)
    assert scene.noted(1) == [b"a"]
    scene.recorder.wait_for(Accepted, 3)
    other.send(b"x")
    assert scene.noted(1) == [b"x"]  # another peer does not wait
    scene.go_on.release(4)
    noted = [data for data in scene.noted(6) if data not in b"X"]
    assert noted == [b"A", b"b", b"B", b"c", b"C"]
    scene.recorder.wait_for(Finished, 4)


def test_without_the_order_they_run_at_once(scene: Scene) -> None:
    scene.serve(ordered_peers=False)
    one = scene.peer()
    one.send(b"a")
    one.send(b"b")
    assert sorted(scene.noted(2)) == [b"a", b"b"]
    scene.go_on.release(2)


def test_a_failure_does_not_stop_the_peer(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()
    monkeypatch.setattr("threading.excepthook", lambda args: failed.set())

    class Failing(ThreadPoolUDPServer):
        def process_request_thread(self, request: Any, client_address: Any) -> None:
            super().process_request_thread(request, client_address)
            if request[0] == b"a":
                raise SystemExit

    scene.serve(Failing)
    one = scene.peer()
    scene.go_on.release(2)
    one.send(b"a")
    one.send(b"b")
    assert scene.noted(4) == [b"a", b"A", b"b", b"B"]
    assert failed.wait(LIMIT)


def test_a_stop_refuses_what_waits_for_a_peer(scene: Scene) -> None:
    server = scene.serve()
    one = scene.peer()
    one.send(b"a")
    assert scene.noted(1) == [b"a"]
    one.send(b"b")
    one.send(b"c")
    scene.recorder.wait_for(Accepted, 3)
    stopping = Background(server.stop, 0)
    refused = scene.recorder.wait_for(Refused, 2)
    assert {event.reason for event in refused} == {"stopped"}
    scene.go_on.release()
    stopping.result()
    assert scene.noted(1) == [b"A"]
    scene.recorder.wait_for(Finished)


def test_what_waits_for_a_peer_is_handled_before_a_close(scene: Scene) -> None:
    server = scene.serve()
    one = scene.peer()
    for data in (b"a", b"b", b"c"):
        one.send(data)
    scene.recorder.wait_for(Accepted, 3)
    server.shutdown()
    closing = Background(server.server_close)
    scene.go_on.release(3)
    closing.result()
    assert scene.noted(6) == [b"a", b"A", b"b", b"B", b"c", b"C"]
