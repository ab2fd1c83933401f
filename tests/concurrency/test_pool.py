"""``concurrency.pool``: requests in a bounded number of threads."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT, Background, ask, connect, read_all, serving
from tests.scenes import LOOPBACK, Echo, EventRecorder, Gate, Held

from everserve.admission.access import Networks
from everserve.combos import ThreadPoolTCPServer, ThreadPoolUDPServer
from everserve.concurrency import pool
from everserve.events import Accepted, Finished, Opened, Refused
from everserve.handlers.base import BaseRequestHandler
from everserve.mixins import ThreadPoolMixIn
from everserve.sockets.tls import TLS


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


class OneUpper(ThreadPoolTCPServer):
    max_workers = 1
    handshake_timeout = 600.0
    proxy_timeout = 600.0


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def secure(certificates: Certificates) -> Iterator[Any]:
    """Serves TLS with one worker; what was accepted is at hand as ``recorder``."""
    server, recorder = OneUpper(LOOPBACK, Echo), EventRecorder()
    server.tls = TLS(*certificates.server)
    server.subscribe(recorder)
    server.recorder = recorder  # type: ignore[attr-defined]
    with serving(server):
        yield server


def ask_securely(certificates: Certificates, address: Any, before: bytes = b"") -> bytes:
    with connect(address) as plain:
        plain.sendall(before)
        context = certificates.client_context()
        with context.wrap_socket(plain, server_hostname="localhost") as client:
            client.sendall(b"ping")
            return client.recv(100)


def hello_of(context: ssl.SSLContext) -> bytes:
    """The first message of a client."""
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


@pytest.mark.parametrize("sent", ["nothing", "half a hello", "a hello"])
def test_half_open_handshakes_hold_no_worker(
    secure: Any, certificates: Certificates, sent: str
) -> None:
    hello = hello_of(certificates.client_context())
    what = {"nothing": b"", "half a hello": hello[:50], "a hello": hello}[sent]
    clients = [connect(secure.server_address) for _ in range(3)]
    for client in clients:
        client.sendall(what)
    secure.recorder.wait_for(Accepted, 3)
    assert ask_securely(certificates, secure.server_address) == b"ping"
    for client in clients:
        client.close()
    refusals = secure.recorder.wait_for(Refused, 3)
    assert [refusal.reason for refusal in refusals] == ["handshake"] * 3


def test_half_open_headers_hold_no_worker(secure: Any, certificates: Certificates) -> None:
    secure.trusted_proxies = Networks(["127.0.0.0/8"])
    secure.proxy_protocol = True
    clients = [connect(secure.server_address) for _ in range(3)]
    header = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n"
    for client, part in zip(clients, (b"", header[:9], header), strict=True):
        client.sendall(part)
    secure.recorder.wait_for(Accepted, 3)
    assert ask_securely(certificates, secure.server_address, header) == b"ping"
    assert secure.recorder.wait_for(Opened)[0].peer == ("192.0.2.7", 4711)
    for client in clients:
        client.close()
    refusals = secure.recorder.wait_for(Refused, 3)
    assert sorted(refusal.reason for refusal in refusals) == ["handshake", "proxy", "proxy"]


def test_a_handshake_that_waits_has_its_time(secure: Any, certificates: Certificates) -> None:
    secure.handshake_timeout = 0.1
    with connect(secure.server_address) as client:
        assert secure.recorder.wait_for(Refused)[0].reason == "handshake_timeout"
        assert read_all(client) == b""
    assert ask_securely(certificates, secure.server_address) == b"ping"


def test_too_many_first_steps_wait_in_the_kernels_queue(
    secure: Any, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MOST_EARLY", 2)
    clients = [connect(secure.server_address) for _ in range(3)]
    secure.recorder.wait_for(Accepted, 2)
    with connect(secure.server_address) as late:
        for client in clients:
            client.close()
        with certificates.client_context().wrap_socket(late, server_hostname="localhost") as good:
            good.sendall(b"ping")
            assert good.recv(100) == b"ping"
    assert len(secure.recorder.wait_for(Refused, 3)) == 3


def test_what_the_first_steps_refuse_needs_no_worker(
    secure: Any, certificates: Certificates
) -> None:
    context = certificates.client_context()
    with (
        connect(secure.server_address) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as busy,
    ):
        busy.sendall(b"ping")
        assert busy.recv(100) == b"ping"  # this connection keeps the only worker
        connect(secure.server_address).close()
        assert secure.recorder.wait_for(Refused)[0].reason == "handshake"


def test_a_hook_of_the_program_ends_what_is_refused(
    secure: Any, certificates: Certificates
) -> None:
    ended: list[str] = []
    close = secure.shutdown_request

    def shut_down(request: Any) -> None:
        ended.append(threading.current_thread().name)
        close(request)

    secure.shutdown_request = shut_down
    connect(secure.server_address).close()
    secure.recorder.wait_for(Refused)
    assert ask_securely(certificates, secure.server_address) == b"ping"
    assert ended[0].startswith("worker")


def test_a_stop_cuts_the_first_steps(secure: Any) -> None:
    with connect(secure.server_address) as client:
        secure.recorder.wait_for(Accepted)
        report = secure.stop(0)
        assert len(report.cut) == 1
        assert report.unfinished == ()
        assert read_all(client) == b""
    assert secure.recorder.wait_for(Refused)[0].reason in ("stopped", "handshake")


class Wraps(OneUpper):
    """A program that handles the request itself takes the steps where it does."""

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.threads = threading.current_thread().name  # type: ignore[attr-defined]
        super().finish_request(request, client_address)


def test_a_hook_of_the_program_has_the_steps_to_itself(certificates: Certificates) -> None:
    server = Wraps(LOOPBACK, Echo)
    server.tls = TLS(*certificates.server)
    with serving(server) as address:
        assert ask_securely(certificates, address) == b"ping"
        assert server._everserve.strategy._early._thread is None  # type: ignore[attr-defined]
