"""``server.udp``: datagrams as requests."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.clients import LIMIT, Background, serving
from tests.scenes import LOOPBACK, EventRecorder

from everserve.admission.access import AccessRules
from everserve.combos import (
    FiberUDPServer,
    ForkingUDPServer,
    ThreadingUDPServer,
    ThreadPoolUDPServer,
)
from everserve.errors import OptionError, ServerClosedError
from everserve.events import Accepted, Finished, Refused, Stopped, Truncated
from everserve.handlers.datagram import DatagramRequestHandler
from everserve.lifecycle.state import ServerState
from everserve.lifecycle.tally import Tally
from everserve.server.tcp import TCPServer
from everserve.server.udp import UDPServer
from everserve.serving import make_server


class Echo(DatagramRequestHandler):
    def handle(self) -> None:
        self.wfile.write(self.rfile.read())


@pytest.fixture
def client() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))
        client.settimeout(LIMIT)
        yield client


def test_it_is_a_tcp_server() -> None:
    assert issubclass(UDPServer, TCPServer)
    assert UDPServer.max_packet_size == 65535
    assert UDPServer.socket_type == socket.SOCK_DGRAM


def test_it_answers(client: socket.socket) -> None:
    server, recorder = UDPServer(LOOPBACK, Echo), EventRecorder()
    server.subscribe(recorder)
    with serving(server) as address:
        for message in (b"one", b"two"):
            client.sendto(message, address)
            assert client.recv(100) == message
        recorder.wait_for(Finished, 2)
    assert recorder.of(Accepted) == [Accepted(n, client.getsockname()) for n in (1, 2)]
    assert len(server.connections) == 0


def test_handle_request_waits_for_one(client: socket.socket) -> None:
    with UDPServer(LOOPBACK, Echo) as server:
        thread = Background(server.handle_request)
        client.sendto(b"ping", server.server_address)
        assert client.recv(100) == b"ping"
        thread.result()


def test_a_datagram_that_was_dropped_does_not_block_the_loop(client: socket.socket) -> None:
    class Stolen(UDPServer):
        thefts = 0

        def get_request(self) -> Any:
            if not self.thefts:
                self.thefts += 1
                self.socket.recv(100)
            return super().get_request()

    with serving(Stolen(LOOPBACK, Echo)) as address:
        client.sendto(b"stolen", address)
        client.sendto(b"kept", address)
        assert client.recv(100) == b"kept"


def test_a_truncated_datagram_is_an_event(client: socket.socket) -> None:
    server, recorder = UDPServer(LOOPBACK, Echo), EventRecorder()
    server.max_packet_size = 3
    server.subscribe(recorder)
    with serving(server) as address:
        client.sendto(b"12345", address)
        assert client.recv(100) == b"123"
    assert recorder.of(Truncated) == [Truncated(client.getsockname(), 3)]


def test_truncated_datagrams_are_reported_once_a_second(
    client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    add = Tally.add
    monkeypatch.setattr(Tally, "add", lambda tally, now: add(tally, clock[0]))
    server, recorder = UDPServer(LOOPBACK, Echo), EventRecorder()
    server.max_packet_size = 3
    server.subscribe(recorder)
    with serving(server) as address:
        for seconds in (0.0, 0.1, 0.2, 1.0):
            clock[0] = 100.0 + seconds
            client.sendto(b"12345", address)
            assert client.recv(100) == b"123"
    assert [event.count for event in recorder.of(Truncated)] == [1, 3]


def test_a_truncated_datagram_that_is_refused_is_not_reported(
    client: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    server, recorder = UDPServer(LOOPBACK, Echo), EventRecorder()
    server.max_packet_size = 3
    server.access = AccessRules.parse("deny 127.0.0.0/8")
    server.subscribe(recorder)
    with serving(server) as address:
        client.sendto(b"12345", address)
        recorder.wait_for(Refused)
    assert recorder.of(Truncated) == []
    assert not caplog.records


def test_an_empty_datagram_is_one_too(client: socket.socket) -> None:
    def tell(request: Any, client_address: Any, server: UDPServer) -> None:
        request[1].sendto(b"%d" % len(request[0]), client_address)

    with serving(UDPServer(LOOPBACK, tell)) as address:
        client.sendto(b"", address)
        assert client.recv(100) == b"0"


def test_closing_a_request_keeps_the_socket() -> None:
    with UDPServer(LOOPBACK, Echo) as server:
        request = (b"data", server.socket)
        server._everserve.connections.add(request, "peer")
        server.close_request(request)
        assert len(server.connections) == 0
        server._everserve.connections.add(request, "peer")
        server.shutdown_request(request)
        assert len(server.connections) == 0
        assert server.fileno() != -1


# -- a handler that stops the server, and then replies -----------------------------------------


class StopsAndReplies:
    """A handler that stops its server, and replies when a test lets it."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.thread: threading.Thread | None = None

    def __call__(self, request: Any, client_address: Any, server: Any) -> None:
        self.thread = threading.current_thread()
        server.stop(3600)
        assert self.go_on.wait(LIMIT)
        request[1].sendto(b"bye", client_address)


def stopped(kind: type[UDPServer], handler: Any, client: socket.socket) -> Any:
    """A server that its handler has stopped; the handler is not done."""
    server, recorder = kind(LOOPBACK, handler), EventRecorder()
    server.subscribe(recorder)
    thread = Background(server.serve_forever)
    client.sendto(b"stop", server.server_address)
    recorder.wait_for(Stopped)
    thread.result()
    return server


@pytest.mark.parametrize("kind", [ThreadingUDPServer, ThreadPoolUDPServer])
def test_the_socket_is_open_until_the_reply_is_sent(
    client: socket.socket, kind: type[UDPServer]
) -> None:
    handler = StopsAndReplies()
    server = stopped(kind, handler, client)
    assert server.state is ServerState.STOPPED
    assert server.fileno() != -1
    for call in (server.serve_forever, server.handle_request):
        with pytest.raises(ServerClosedError):
            call()
    handler.go_on.set()
    assert client.recv(100) == b"bye"
    assert handler.thread is not None
    handler.thread.join(LIMIT)
    assert server.fileno() == -1
    assert len(server.connections) == 0


def test_server_close_closes_the_socket_at_once(client: socket.socket) -> None:
    handler = StopsAndReplies()
    server = stopped(ThreadingUDPServer, handler, client)
    server.server_close()
    assert server.fileno() == -1
    handler.go_on.set()
    assert handler.thread is not None
    handler.thread.join(LIMIT)
    assert len(server.connections) == 0


@pytest.mark.parametrize("kind", [UDPServer, FiberUDPServer, ForkingUDPServer])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_where_the_loop_runs_on_it_replies_too(
    client: socket.socket, kind: type[UDPServer]
) -> None:
    def stop(request: Any, client_address: Any, server: Any) -> None:
        server.stop(3600)
        request[1].sendto(b"bye", client_address)

    server, recorder = kind(LOOPBACK, stop), EventRecorder()
    server.subscribe(recorder)
    thread = Background(server.serve_forever)
    client.sendto(b"stop", server.server_address)
    assert client.recv(100) == b"bye"
    thread.result()
    recorder.wait_for(Stopped)
    assert server.fileno() == -1


# -- what the socket receives ------------------------------------------------------------------


def test_the_receive_buffer(caplog: pytest.LogCaptureFixture) -> None:
    class Small(UDPServer):
        receive_buffer = 50_000

    with Small(LOOPBACK, Echo) as server:
        assert server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 100_000
    assert not caplog.records


def test_a_receive_buffer_that_the_system_does_not_give(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everserve.server.udp.enlarge_buffer", lambda sock, size: 1000)
    make_server(Echo, "udp://127.0.0.1:0", receive_buffer=5000).server_close()
    (record,) = caplog.records
    assert "receive_buffer = 5000: the system gives 1000 bytes" in record.getMessage()


def test_an_inherited_socket_gets_the_receive_buffer_too() -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(LOOPBACK)
    with make_server(Echo, f"fd://{sock.detach()}", receive_buffer=50_000) as server:
        assert server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 100_000


def test_a_broadcast(client: socket.socket) -> None:
    """127.255.255.255 is the broadcast address of the loopback network."""

    class Announce(DatagramRequestHandler):
        def handle(self) -> None:
            self.socket.sendto(b"to all", ("127.255.255.255", int(self.packet)))

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(LIMIT)
        receiver.bind(("127.255.255.255", 0))
        server = make_server(Announce, "udp://127.0.0.1:0", broadcast=True)
        with server.running() as address:
            client.sendto(b"%d" % receiver.getsockname()[1], address)
            assert receiver.recv(100) == b"to all"


GROUP = "239.255.77.2"


@pytest.mark.parametrize("concurrency", ["serial", "threads", "pool", "fibers"])
def test_a_multicast_group(client: socket.socket, concurrency: Any) -> None:
    """All members have what is sent to the group; several servers may be one on one machine."""
    with make_server(Echo, f"udp://{GROUP}:0?interface=lo", concurrency=concurrency) as first:
        port = first.server_address[1]
        second = make_server(Echo, f"udp://{GROUP}:{port}?interface=lo", concurrency=concurrency)
        client.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        with first.running() as address, second.running():
            client.sendto(b"all", address)
            assert [client.recv(100), client.recv(100)] == [b"all", b"all"]


def test_a_server_with_a_group_for_its_address_joins_only_if_it_is_told_to() -> None:
    """A program of the standard library joins by itself, which works once."""
    with UDPServer((GROUP, 0), Echo) as server:
        member = socket.inet_aton(GROUP) + socket.inet_aton("127.0.0.1")
        server.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)


def test_an_interface_is_for_a_group_alone() -> None:
    with pytest.raises(OptionError, match=r"udp://127.0.0.1:0: is no multicast group"):
        make_server(Echo, "udp://127.0.0.1:0", multicast_interface="lo")
    UDPServer.multicast_interface = "a program's own"
    try:
        UDPServer(LOOPBACK, Echo).server_close()
    finally:
        UDPServer.multicast_interface = None


def test_an_interface_that_there_is_not() -> None:
    with pytest.raises(OSError, match="none0"):
        make_server(Echo, f"udp://{GROUP}:0?interface=none0")


def test_several_sockets_share_a_port(client: socket.socket) -> None:
    """The kernel gives all datagrams of one peer to the same socket (SO_REUSEPORT, socket(7))."""
    first = make_server(Echo, "udp://127.0.0.1:0", allow_reuse_port=True)
    second = make_server(Echo, f"udp://127.0.0.1:{first.server_address[1]}", allow_reuse_port=True)
    with first.running() as address, second.running():
        with ExitStack() as stack:
            clients = [
                stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(40)
            ]
            for one in clients:
                one.settimeout(LIMIT)
                one.sendto(b"hello", address)
                assert one.recv(100) == b"hello"
    served = [server._everserve.connections.accepted for server in (first, second)]
    assert sum(served) == 40
    assert all(served)  # one of both has none once in 2 ** 39 times


def test_several_processes_share_a_port(client: socket.socket) -> None:
    first = make_server(Echo, "udp://127.0.0.1:0", allow_reuse_port=True)
    port = first.server_address[1]
    program = (
        "import everserve\n"
        "class Other(everserve.DatagramRequestHandler):\n"
        "    def handle(self): self.wfile.write(b'other')\n"
        f"everserve.serve(Other, 'udp://127.0.0.1:{port}', allow_reuse_port=True,\n"
        "    on_ready=lambda servers: print(flush=True))"
    )
    with first.running() as address:
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            answers = set()
            with ExitStack() as stack:
                for _ in range(40):  # those that are closed would leave their ports to the next
                    one = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
                    one.settimeout(LIMIT)
                    one.sendto(b"first", address)
                    answers.add(one.recv(100))
            process.terminate()
    assert answers == {b"first", b"other"}
