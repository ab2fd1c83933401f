"""``mixins``: each on the standard library's servers, and the duties of all strategies."""

from __future__ import annotations

import gc
import http.client
import http.server
import os
import socket
import socketserver
import threading
import weakref
import wsgiref.simple_server
import xmlrpc.client
import xmlrpc.server
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT, Background, ask, connect, read_all, serving
from tests.scenes import LOOPBACK, Echo, EventRecorder, Held

from everserve.combos import (
    FiberTCPServer,
    ForkingTCPServer,
    ThreadingTCPServer,
    ThreadPoolTCPServer,
)
from everserve.errors import OptionError
from everserve.events import Failed, Finished, Refused, Stopped
from everserve.lifecycle.state import ServerState
from everserve.mixins import FiberMixIn, ForkingMixIn, ThreadingMixIn, ThreadPoolMixIn
from everserve.server.group import ServerGroup
from everserve.server.served import Served
from everserve.server.tcp import TCPServer
from everserve.sockets.tls import TLS

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)

MIX_INS: list[Any] = [ThreadingMixIn, ThreadPoolMixIn, ForkingMixIn, FiberMixIn]
OURS: list[Any] = [
    TCPServer, ThreadingTCPServer, ThreadPoolTCPServer, ForkingTCPServer, FiberTCPServer
]  # fmt: skip
LINUX = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")


@pytest.fixture(params=MIX_INS, ids=lambda mix_in: mix_in.__name__)
def kind(request: pytest.FixtureRequest) -> Any:
    """A mix-in over the standard library's TCPServer."""
    return type("Server", (request.param, socketserver.TCPServer), {})


@pytest.fixture(params=OURS, ids=lambda kind: kind.__name__)
def ours(request: pytest.FixtureRequest) -> Any:
    return request.param


# -- without a server --------------------------------------------------------------------------


@pytest.mark.parametrize("mix_in", MIX_INS, ids=lambda mix_in: mix_in.__name__)
def test_without_a_server_it_has_nothing_of_one(mix_in: Any) -> None:
    """As the standard library's: the tests of Django make the stand-in of a socket of one."""

    class Stub(mix_in):  # type: ignore[misc]
        def __init__(self) -> None:
            self.makefile = object()

    stub = Stub()
    names = [name for name in vars(Served) if not name.startswith("_")]
    assert {"shutdown", "stop", "running", "state", "subscribe"} <= set(names)
    assert [name for name in names if hasattr(stub, name)] == []
    with pytest.raises(AttributeError, match="'Stub' object has no attribute 'shutdown'"):
        stub.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("mix_in", MIX_INS, ids=lambda mix_in: mix_in.__name__)
def test_a_mix_in_of_ones_own_brings_all_to_a_server(mix_in: Any) -> None:
    own = type("Own", (mix_in,), {})
    with type("Server", (own, socketserver.TCPServer), {})(LOOPBACK, Echo) as server:
        assert server.state is ServerState.READY
        assert callable(server.stop)


# -- over the standard library's servers -------------------------------------------------------


def test_the_mode_of_a_shared_listener_is_not_trusted(kind: Any) -> None:
    """Another process that shares it may make it block: the loop would wait in accept for ever."""
    tried = threading.Event()

    class Server(kind):
        def service_actions(self) -> None:
            if not tried.is_set():
                os.set_blocking(self.fileno(), True)
                self._handle_request_noblock()  # nothing waits
                tried.set()

    with serving(Server(LOOPBACK, Echo), 0.01):
        assert tried.wait(LIMIT)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_workers_that_share_a_listener_end_one_after_the_other(ours: Any) -> None:
    server = ours(LOOPBACK, Echo)
    workers = [_worker(server) for _ in range(2)]
    for pid, stop in workers:
        assert ask(server.server_address) == b"ping"
        os.write(stop, b"x")
        assert os.waitpid(pid, 0)[1] == 0
        os.close(stop)
    assert os.get_blocking(server.fileno())
    server.server_close()


def _worker(server: Any) -> tuple[int, int]:
    """A forked process that serves until it can read a byte: its id, and where to write that."""
    told, stop = os.pipe()
    ready, serves = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(stop)
        status = 1
        try:
            thread = Background(server.serve_forever)
            life = server._everserve.life
            life.notifier.wait_until(lambda: life.announcements)
            os.write(serves, b"x")
            os.read(told, 1)
            server.shutdown()
            thread.result()
            status = 0
        finally:
            os._exit(status)
    os.close(told)
    os.close(serves)
    os.read(ready, 1)
    os.close(ready)
    return pid, stop


def test_it_serves_as_the_standard_librarys_does(kind: Any) -> None:
    with serving(kind(LOOPBACK, Echo), 0.01) as address:
        for _ in range(3):
            assert ask(address) == b"ping"


def test_it_runs_while_a_block_runs(kind: Any) -> None:
    server = kind(LOOPBACK, Echo)
    with server.running() as address:
        assert address == server.server_address
        assert server.state is ServerState.SERVING
        assert ask(address) == b"ping"
    assert server.state is ServerState.STOPPED
    assert server.fileno() == -1


def test_a_stop_waits_for_requests_in_progress(kind: Any) -> None:
    server, recorder = kind(LOOPBACK, Held), EventRecorder()
    server.subscribe(recorder)
    with server.running() as address, connect(address) as client:
        assert client.recv(5) == b"ready"
        stop = Background(server.stop, 3600)
        server._everserve.life.notifier.wait_until(lambda: server.draining)
        client.sendall(b"go on")
        assert read_all(client) == b"bye"
        report = stop.result()
    assert (report.finished, report.cut, report.unfinished) == (1, (), ())
    assert recorder.of(Stopped) == [Stopped(report)]


def test_a_stop_cuts_them_after_its_grace(kind: Any) -> None:
    server = kind(LOOPBACK, Held)
    server.handle_error = lambda *_: None
    with server.running() as address, connect(address) as client:
        assert client.recv(5) == b"ready"
        report = server.stop(0)
        assert read_all(client) == b""
    assert (len(report.cut), report.unfinished) == (1, ())


def test_a_shutdown_ends_it_and_it_serves_again(kind: Any) -> None:
    server = kind(LOOPBACK, Echo)
    for _ in range(2):
        thread = Background(server.serve_forever, 0.01)
        assert ask(server.server_address) == b"ping"
        server.shutdown()
        thread.result()
        assert server.state is ServerState.READY
    server.server_close()


def test_a_shutdown_from_a_handler(kind: Any) -> None:
    def shut_down(request: Any, client_address: Any, server: Any) -> None:
        server.shutdown()
        request.sendall(b"done")

    with kind(LOOPBACK, shut_down) as server:
        thread = Background(server.serve_forever, 0.01)
        assert ask(server.server_address, b"") == b"done"
        thread.result()


def test_a_handler_that_stops_the_server_does_not_wait_for_itself(kind: Any) -> None:
    def stop(request: Any, client_address: Any, server: Any) -> None:
        server.stop(3600)
        request.sendall(b"stopped")

    server, recorder = kind(LOOPBACK, stop), EventRecorder()
    server.subscribe(recorder)
    thread = Background(server.serve_forever)
    assert ask(server.server_address, b"") == b"stopped"
    thread.result()
    (stopped,) = recorder.wait_for(Stopped)
    assert stopped.report.cut == ()


def test_connections_and_events(kind: Any) -> None:
    server, recorder = kind(LOOPBACK, Held), EventRecorder()
    server.subscribe(recorder)
    with server.running() as address:
        with connect(address) as client:
            assert client.recv(5) == b"ready"
            assert [c.peer for c in server.connections] == [client.getsockname()]
            client.sendall(b"go on")
            assert read_all(client) == b"bye"
        recorder.wait_for(Finished)
        assert len(server.connections) == 0
    # Opened is emitted by everserve's own finish_request, or else at the end.
    assert recorder.names() == [
        "Serving", "Accepted", "Opened", "Finished", "Draining", "Stopped"
    ]  # fmt: skip


def test_a_handler_that_fails_is_an_event_and_calls_handle_error(kind: Any) -> None:
    class Server(kind):
        def handle_error(self, request: Any, client_address: Any) -> None:
            request.sendall(b"handled")

    def fail(*_: Any) -> None:
        raise ValueError("wrong")

    server, recorder = Server(LOOPBACK, fail), EventRecorder()
    server.subscribe(recorder)
    with server.running() as address:
        assert ask(address, b"") == b"handled"
        (failed,) = recorder.wait_for(Failed)
    assert "wrong" in str(failed.error)


def test_an_unverified_request_is_refused(kind: Any) -> None:
    server, recorder = kind(LOOPBACK, Echo), EventRecorder()
    server.subscribe(recorder)
    server.verify_request = lambda *_: False
    with server.running() as address:
        assert ask(address, b"") == b""
        recorder.wait_for(Refused)
    assert server.refusals == {"verify_request": 1}


def test_limits_count_there_too(kind: Any) -> None:
    class Server(kind):
        max_connections = 1
        overload = "refuse"
        overload_message = b"busy"

    server = Server(LOOPBACK, Held)
    with server.running() as address, connect(address) as client:
        assert client.recv(5) == b"ready"
        assert ask(address, b"") == b"busy"
        client.sendall(b"go on")
        assert read_all(client) == b"bye"


def test_single_requests(kind: Any) -> None:
    with kind(LOOPBACK, Echo) as server:
        thread = Background(server.handle_request)
        assert ask(server.server_address) == b"ping"
        thread.result()
        server.timeout = 0
        server.handle_request()


def test_a_program_that_sets_the_old_flag_ends_the_loop(kind: Any) -> None:
    class Server(kind):
        def process_request(self, request: Any, client_address: Any) -> None:
            super().process_request(request, client_address)
            self._BaseServer__shutdown_request = True

    with Server(LOOPBACK, Echo) as server:
        assert server._BaseServer__shutdown_request is False
        thread = Background(server.serve_forever)
        assert ask(server.server_address) == b"ping"
        thread.result()
        assert server._BaseServer__shutdown_request is False


def test_the_old_event_shows_whether_it_serves(kind: Any) -> None:
    with kind(LOOPBACK, Echo) as server:
        event = server._BaseServer__is_shut_down
        thread = Background(server.serve_forever, 0.01)
        assert ask(server.server_address) == b"ping"
        assert not event.is_set()
        server.shutdown()
        assert event.is_set()
        thread.result()


def test_service_actions_are_called(kind: Any) -> None:
    class Server(kind):
        turned = threading.Event()

        def service_actions(self) -> None:
            super().service_actions()
            self.turned.set()

    with Server(LOOPBACK, Echo).running(poll_interval=0.001):
        assert Server.turned.wait(LIMIT)


def test_in_a_group_with_a_server_of_everserve(kind: Any) -> None:
    with ServerGroup([kind(LOOPBACK, Echo), TCPServer(LOOPBACK, Echo)]).running() as addresses:
        for address in addresses:
            assert ask(address) == b"ping"


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"page")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("mix_in", MIX_INS)
def test_a_web_server(mix_in: Any) -> None:
    server = type("Server", (mix_in, http.server.HTTPServer), {})(LOOPBACK, Page)
    with server.running() as (host, port):
        client = http.client.HTTPConnection(host, port, timeout=LIMIT)
        for _ in range(2):  # the connection is reused
            client.request("GET", "/")
            assert client.getresponse().read() == b"page"
        client.sock.shutdown(socket.SHUT_RDWR)  # a forked child has a copy of this very socket
        client.close()


@pytest.mark.parametrize("mix_in", MIX_INS)
def test_datagrams(mix_in: Any) -> None:
    def answer(request: Any, client_address: Any, server: Any) -> None:
        request[1].sendto(request[0].upper(), client_address)

    server = type("Server", (mix_in, socketserver.UDPServer), {})(LOOPBACK, answer)
    with server.running() as address, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(LIMIT)
        for _ in range(2):
            client.sendto(b"ping", address)
            assert client.recv(100) == b"PING"


# -- dropped servers ---------------------------------------------------------------------------


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """Objects must be freed by their last reference, not by the collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def assert_no_one_listens(address: Any) -> None:
    """Binding again could fail by chance: an earlier connection may be in TIME_WAIT there."""
    with pytest.raises(ConnectionRefusedError):
        connect(address)


def dropped_after_serving(make: Any) -> tuple[Any, weakref.ref[Any]]:
    """Serve, end, and drop the server. Returns its address, and a weak reference to it."""
    server, recorder = make(LOOPBACK, Echo), EventRecorder()
    server.subscribe(recorder)
    thread = Background(server.serve_forever, 0.01)
    for _ in range(2):
        assert ask(server.server_address) == b"ping"
    recorder.wait_for(Finished, 2)
    server.shutdown()
    thread.result()
    for worker in threading.enumerate():  # a request's thread has the server until its last step
        if "process_request_thread" in worker.name:
            worker.join(LIMIT)
    return server.server_address, weakref.ref(server)


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_dropped_server_is_freed_at_once_and_so_is_its_port(ours: Any) -> None:
    address, server = dropped_after_serving(ours)
    assert server() is None
    assert_no_one_listens(address)


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_so_is_a_server_of_the_standard_library_under_a_mix_in(kind: Any) -> None:
    address, server = dropped_after_serving(kind)
    assert server() is None
    assert_no_one_listens(address)


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_so_is_a_server_that_never_served(ours: Any) -> None:
    server = ours(LOOPBACK, Echo)
    address, reference = server.server_address, weakref.ref(server)
    del server
    assert reference() is None
    assert_no_one_listens(address)


@pytest.mark.usefixtures("_no_collector")
def test_so_is_a_stopped_server(ours: Any) -> None:
    server = ours(LOOPBACK, Echo)
    with server.running() as address:
        assert ask(address) == b"ping"
    for worker in threading.enumerate():
        if "process_request_thread" in worker.name:
            worker.join(LIMIT)
    reference = weakref.ref(server)
    del server
    assert reference() is None


# -- a request that a program drops ------------------------------------------------------------


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@LINUX
@pytest.mark.usefixtures("_no_collector")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("hook", ["shutdown_request", "close_request"])
def test_a_request_that_the_hooks_do_not_close_is_closed_when_it_is_dropped(
    ours: Any, hook: str
) -> None:
    class Drops(ours):
        pass

    dropped = threading.Semaphore(0)
    setattr(Drops, hook, lambda self, request: weakref.finalize(request, dropped.release) and None)
    # The parent of a forked child calls only close_request; the test waits for the child's end.
    is_called = not (issubclass(ours, ForkingTCPServer) and hook == "shutdown_request")
    server = Drops(LOOPBACK, Echo)
    with server.running() as address:
        for turn in range(6):
            assert ask_without_end(server, address) == b"ping"
            assert not is_called or dropped.acquire(timeout=LIMIT)
            if turn == 0:
                before = open_descriptors()
        assert open_descriptors() <= before
        report = server.stop(3600)
    assert (report.cut, report.unfinished) == ((), ())


def ask_without_end(server: Any, address: Any) -> bytes:
    """Send a line, and read until the drop of the request ends the stream; then its entry is gone."""
    with connect(address) as client:
        client.sendall(b"ping")
        answer = read_all(client)
    server._everserve.life.notifier.wait_until(lambda: not server.connections)
    return answer


@pytest.mark.parametrize("mixin", [FiberMixIn, ForkingMixIn, ThreadingMixIn, ThreadPoolMixIn])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("proxy_protocol", True),
        ("idle_timeout", 5),
        ("request_timeout", 5.0),
        ("write_timeout", 5),
        ("min_receive_rate", 50),
    ],
)
def test_what_a_step_carries_out_is_an_error_on_a_standard_server(
    mixin: Any, name: str, value: Any
) -> None:
    """No hook of that server would take the steps."""
    kind = type("Server", (mixin, socketserver.TCPServer), {name: value})
    with kind(LOOPBACK, Echo) as server:
        with pytest.raises(OptionError, match=f"{name} has no effect on a server of the standard"):
            server.serve_forever()


@pytest.mark.parametrize("mixin", [FiberMixIn, ForkingMixIn, ThreadingMixIn, ThreadPoolMixIn])
def test_tls_on_a_standard_server_is_an_error_and_not_clear_text(
    mixin: Any, tmp_path: Path
) -> None:
    """No hook of that server would do the handshake."""
    certificates = Certificates(tmp_path)

    class Server(mixin, socketserver.TCPServer):  # type: ignore[misc]
        tls = TLS(*certificates.server)

    with Server(LOOPBACK, Echo) as server:
        with pytest.raises(OptionError, match="tls has no effect on a server of the standard"):
            server.serve_forever()


# -- servers whose handlers need them ------------------------------------------------------------


def test_xmlrpc(mix_in: Any) -> None:
    kind = type("Server", (mix_in, xmlrpc.server.SimpleXMLRPCServer), {})
    server = kind(LOOPBACK, logRequests=False)
    server.register_function(pow)
    with server.running() as (host, port):
        with xmlrpc.client.ServerProxy(f"http://{host}:{port}/") as proxy:
            assert proxy.pow(2, 10) == 1024


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """Write no line."""


def test_wsgiref(mix_in: Any) -> None:
    kind = type("Server", (mix_in, wsgiref.simple_server.WSGIServer), {})
    server = kind(LOOPBACK, Quiet)
    server.set_app(wsgiref.simple_server.demo_app)
    with server.running() as address:
        answer = ask(address, b"GET /path HTTP/1.0\r\n\r\n")
    assert b"Hello world!" in answer
    assert b"PATH_INFO = '/path'" in answer


@pytest.fixture(params=MIX_INS, ids=lambda mix_in: mix_in.__name__)
def mix_in(request: pytest.FixtureRequest) -> Any:
    return request.param
