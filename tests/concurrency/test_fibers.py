"""``concurrency.fibers``: a fiber for each request, on the thread of ``serve_forever``."""

from __future__ import annotations

import logging
import os
import select
import socket
import socketserver
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from tests.clients import LIMIT, Background, ask, connect, read_all, serving
from tests.scenes import LOOPBACK, Echo, EventRecorder, Held

from everserve import fibers
from everserve.combos import FiberTCPServer, FiberUDPServer
from everserve.events import Accepted, DeadlineMissed, Finished, Opened, Stalled
from everserve.fibers import current
from everserve.fibers.engines import FiberSocket
from everserve.fibers.stalls import StallWatch
from everserve.handlers.base import BaseRequestHandler
from everserve.handlers.stream import StreamRequestHandler
from everserve.lifecycle.state import ServerState
from everserve.mixins import FiberMixIn


def test_the_defaults() -> None:
    assert FiberMixIn.stall_threshold == 0.1
    assert FiberMixIn.shutdown_grace == 5
    assert FiberMixIn.coalesce_writes is True
    assert FiberMixIn.daemon_threads is False
    assert FiberMixIn.block_on_close is True


def test_each_request_has_its_fiber_on_one_thread() -> None:
    seen: list[tuple[Any, Any]] = []

    def note(request: Any, *_: Any) -> None:
        assert type(request) is FiberSocket
        seen.append((current(), threading.get_ident()))

    with serving(FiberTCPServer(LOOPBACK, note)) as address:
        for _ in range(3):
            assert ask(address, b"") == b""
    assert len({fiber for fiber, _ in seen}) == 3
    assert len({thread for _, thread in seen}) == 1


def test_hundreds_at_once() -> None:
    server, recorder = FiberTCPServer(LOOPBACK, Held), EventRecorder()
    server.subscribe(recorder)
    with serving(server) as address:
        clients = [connect(address) for _ in range(300)]
        recorder.wait_for(Opened, 300)
        for client in clients:
            client.sendall(b"go on")
        for client in clients:
            assert read_all(client) == b"readybye"
            client.close()


def test_it_accepts_no_more_than_it_admits() -> None:
    server, recorder = FiberTCPServer(LOOPBACK, Held), EventRecorder()
    server.max_connections = 2
    server.subscribe(recorder)
    with serving(server) as address:
        clients = [connect(address) for _ in range(5)]
        recorder.wait_for(Opened, 2)
        assert len(recorder.of(Accepted)) == 2
        for client in clients:
            client.sendall(b"go on")
        for client in clients:
            assert read_all(client) == b"readybye"
            client.close()
        recorder.wait_for(Finished, 5)


def test_handle_request_without_a_loop_runs_it_here() -> None:
    with FiberTCPServer(LOOPBACK, Echo) as server:
        with connect(server.server_address) as client:
            client.sendall(b"ping")
            server.handle_request()
            assert client.recv(100) == b"ping"


@pytest.mark.parametrize("kind", [SystemExit, fibers.FiberExit])
def test_an_exit_of_a_handler_ends_only_its_request(kind: type[BaseException]) -> None:
    class Leaves(BaseRequestHandler):
        def handle(self) -> None:
            if self.request.recv(100) == b"leave":
                raise kind
            self.request.sendall(b"stayed")

    with serving(FiberTCPServer(LOOPBACK, Leaves)) as address:
        assert ask(address, b"leave") == b""
        assert ask(address, b"stay") == b"stayed"


def test_an_error_outside_of_the_handler_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FiberTCPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            raise ValueError("broken")

    def fail(*_: Any) -> None:
        raise KeyError("meant to fail")

    server = Broken(LOOPBACK, fail)
    with serving(server) as address:
        assert ask(address, b"") == b""
    record = caplog.records[-1]
    assert (record.name, record.levelno) == ("everserve", logging.ERROR)
    assert "broken" in record.getMessage()


def test_a_handler_that_holds_the_loop_is_reported() -> None:
    class Holds(BaseRequestHandler):
        def handle(self) -> None:
            assert reported.wait(LIMIT)

    reported = threading.Event()
    server = FiberTCPServer(LOOPBACK, Holds)
    server.stall_threshold = 0.01
    stalls: list[Stalled] = []

    def record(event: Any) -> None:
        if isinstance(event, Stalled):
            stalls.append(event)
            reported.set()

    server.subscribe(record)
    with serving(server) as address:
        assert ask(address, b"") == b""
    (stalled,) = stalls
    assert (stalled.fiber, stalled.threshold) == ("Holds", 0.01)
    assert "reported.wait(LIMIT)" in stalled.stack


@pytest.mark.parametrize(("idle", "pause"), [(True, None), (False, 0.05)])
def test_the_watch_pauses_only_while_the_hub_waits_in_the_kernel(
    idle: bool, pause: float | None
) -> None:
    """Between a wait and the fiber that it woke, a hub looks like an idle one."""
    loop = SimpleNamespace(call_when_active=lambda callback: None)
    hub = SimpleNamespace(running=None, switches=7, idle=idle, loop=loop)
    watch = StallWatch()
    assert watch._until_active([SimpleNamespace(hub=hub)], 0.05) == pause  # type: ignore


def test_the_watch_for_stalls_may_be_off() -> None:
    before = threading.active_count()
    server = FiberTCPServer(LOOPBACK, lambda request, *_: request.sendall(b"here"))
    server.stall_threshold = None
    with serving(server) as address:
        assert ask(address, b"") == b"here"
    assert threading.active_count() <= before


# -- the end -----------------------------------------------------------------------------------


def test_after_shutdown_requests_in_progress_go_on() -> None:
    server = FiberTCPServer(LOOPBACK, Held)
    thread = Background(server.serve_forever)
    with connect(server.server_address) as client:
        assert client.recv(5) == b"ready"
        server.shutdown()
        assert server.state is ServerState.READY
        client.sendall(b"go on")
        assert read_all(client) == b"bye"
        thread.result()
    server.server_close()


def test_after_the_shutdown_grace_they_are_cut() -> None:
    server = FiberTCPServer(LOOPBACK, Held)
    server.shutdown_grace = 0.01
    thread = Background(server.serve_forever)
    with connect(server.server_address) as client:
        assert client.recv(5) == b"ready"
        server.shutdown()
        thread.result()
        assert read_all(client) == b""
    server.server_close()


@pytest.mark.parametrize("attribute", ["daemon_threads", "block_on_close"])
def test_closing_may_cut_them_at_once(attribute: str) -> None:
    server = FiberTCPServer(LOOPBACK, Held)
    setattr(server, attribute, attribute == "daemon_threads")
    thread = Background(server.serve_forever)
    with connect(server.server_address) as client:
        assert client.recv(5) == b"ready"
        server.server_close()
        thread.result()
        assert read_all(client) == b""


def test_closing_waits_for_them() -> None:
    server = FiberTCPServer(LOOPBACK, Held)
    thread = Background(server.serve_forever)
    with connect(server.server_address) as client:
        assert client.recv(5) == b"ready"
        closing = Background(server.server_close)
        closing.join(0.02)
        assert closing.is_alive()
        client.sendall(b"go on")
        assert read_all(client) == b"bye"
        closing.result()
        thread.result()


def test_a_fiber_that_does_not_end_after_a_cut_is_killed() -> None:
    class Waits(BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"ready")
            try:
                fibers.sleep(3600)
            finally:
                ended.set()

    ended = threading.Event()
    server = FiberTCPServer(LOOPBACK, Waits)
    thread = Background(server.serve_forever)
    with connect(server.server_address) as client:
        assert client.recv(5) == b"ready"
        server.stop(0)
        thread.result()
        assert ended.wait(LIMIT)


def test_a_fiber_may_stop_the_server_and_wait_for_the_others() -> None:
    class Stops(BaseRequestHandler):
        def handle(self) -> None:
            if self.request.recv(100) == b"stop":
                report = self.server.stop(3600)
                self.request.sendall(b"%d finished" % report.finished)
            else:
                self.request.sendall(b"bye")

    server, recorder = FiberTCPServer(LOOPBACK, Stops), EventRecorder()
    server.subscribe(recorder)
    thread = Background(server.serve_forever)
    with connect(server.server_address) as first, connect(server.server_address) as second:
        recorder.wait_for(Opened, 2)
        first.sendall(b"stop")
        server._everserve.life.notifier.wait_until(lambda: server.draining)
        second.sendall(b"go on")
        assert read_all(second) == b"bye"
        assert read_all(first) == b"1 finished"
    thread.result()
    assert server.state is ServerState.STOPPED


def test_in_a_fiber_the_waits_of_another_server_park_it_alone() -> None:
    inner = FiberTCPServer(LOOPBACK, Held)
    inner_thread = Background(inner.serve_forever)

    class Ends(BaseRequestHandler):
        def handle(self) -> None:
            if self.request.recv(100) == b"end":
                inner.stop(3600)
            self.request.sendall(b"done")

    with connect(inner.server_address) as held, serving(FiberTCPServer(LOOPBACK, Ends)) as address:
        assert held.recv(5) == b"ready"
        with connect(address) as ending:
            ending.sendall(b"end")
            inner._everserve.life.notifier.wait_until(lambda: inner.draining)
            assert ask(address, b"serve") == b"done"
            held.sendall(b"go on")
            assert read_all(held) == b"bye"
            assert read_all(ending) == b"done"
    inner_thread.result()


# -- datagrams, and the standard library's servers ---------------------------------------------


def test_datagrams_in_fibers() -> None:
    def answer(request: Any, client_address: Any, server: Any) -> None:
        fibers.sleep(0)
        request[1].sendto(request[0].upper(), client_address)

    with serving(FiberUDPServer(LOOPBACK, answer)) as address:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(LIMIT)
            for _ in range(3):
                client.sendto(b"ping", address)
            assert [client.recv(100) for _ in range(3)] == [b"PING"] * 3


def test_on_the_standard_librarys_server_requests_in_progress_go_on_too() -> None:
    class Server(FiberMixIn, socketserver.TCPServer):  # type: ignore[misc]
        pass

    server = Server(LOOPBACK, Held)
    thread = Background(server.serve_forever, 0.01)
    with connect(server.server_address) as first, connect(server.server_address) as second:
        assert first.recv(5) == second.recv(5) == b"ready"
        server.shutdown()
        for client in (first, second):
            client.sendall(b"go on")
            assert read_all(client) == b"bye"
        thread.result()
    server.server_close()


def test_there_a_stall_is_reported_too() -> None:
    class Server(FiberMixIn, socketserver.TCPServer):  # type: ignore[misc]
        stall_threshold = 0.01

    def hold(*_: Any) -> None:
        assert reported.wait(LIMIT)

    reported = threading.Event()
    server = Server(LOOPBACK, hold)
    server.subscribe(lambda event: isinstance(event, Stalled) and reported.set())
    with serving(server) as address:
        assert ask(address, b"") == b""


@pytest.fixture
def deadlocked() -> Any:
    """A loop that is held for good, until the test releases ``lock``: a mistake of the handler.

    One fiber holds a lock of ``threading`` while it writes to a client that does not read; another
    one wants the lock. Returns the server, its events, both clients and the lock.
    """
    lock = threading.Lock()

    class Locked(StreamRequestHandler):
        def handle(self) -> None:
            much = self.rfile.readline() == b"much\n"
            lock.acquire()
            try:
                self.wfile.write(b"x" * (64 << 20 if much else 1))
                self.wfile.flush()
            except OSError:
                pass
            finally:
                if lock.locked():
                    lock.release()

    class Server(FiberTCPServer):
        write_timeout = 0.1
        stall_threshold = 0.05

    server, recorder = Server(LOOPBACK, Locked), EventRecorder()
    server.subscribe(recorder)
    serving = Background(server.serve_forever)
    with connect(server.server_address) as slow, connect(server.server_address) as other:
        slow.sendall(b"much\n")
        assert slow.recv(1) == b"x"
        other.sendall(b"little\n")
        yield SimpleNamespace(server=server, recorder=recorder, slow=slow)
        lock.release()
    serving.result()
    server.server_close()


def test_deadlines_and_a_stop_act_while_the_loop_is_held(deadlocked: Any) -> None:
    (stalled,) = deadlocked.recorder.wait_for(Stalled)
    assert stalled.stack.startswith("waits for the lock lock, which a parked fiber holds in handle")
    (missed,) = deadlocked.recorder.wait_for(DeadlineMissed)
    assert missed.deadline == "write_timeout"
    while deadlocked.slow.recv(1 << 20):
        pass  # it sees the end: the deadline has cut it
    report = deadlocked.server.stop(grace=0)
    assert len(report.unfinished) == 2


def ask_own_server(handler: Any) -> None:
    with socket.create_connection(handler.server.server_address, timeout=0.2) as client:
        client.sendall(b"inner\n")
        with pytest.raises(TimeoutError):
            client.recv(1)


def select_itself(handler: Any) -> None:
    select.select([handler.request], [], [], 0.2)


def read_a_descriptor_set_blocking(handler: Any) -> None:
    os.set_blocking(handler.request.fileno(), True)
    handler.request.sendall(b"now\n")
    os.read(handler.request.fileno(), 1)


@pytest.mark.parametrize("use", [ask_own_server, select_itself, read_a_descriptor_set_blocking])
def test_what_a_handler_must_not_do_is_told_by_the_stall_watch(use: Any) -> None:
    """What docs/fibers.md lists: none of it holds the loop in silence."""
    handled: list[int] = []

    def handle(handler: Any) -> None:
        if handler.rfile.readline() == b"outer\n" and not handled:
            handled.append(1)
            use(handler)

    kind = type("Handler", (StreamRequestHandler,), {"handle": handle})
    server, recorder = FiberTCPServer(LOOPBACK, kind), EventRecorder()
    server.stall_threshold = 0.02
    server.subscribe(recorder)
    with serving(server) as address, connect(address) as client:
        client.sendall(b"outer\n")
        (stalled,) = recorder.wait_for(Stalled)
        client.sendall(b"x")
        read_all(client)
    assert use.__name__ in stalled.stack
