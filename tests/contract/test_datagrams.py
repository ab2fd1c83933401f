"""The contract of datagrams: batches, the order of replies, and what is not lost without a word."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from tests.clients import LIMIT, Background
from tests.contract.kinds import TRANSPORTS, Client, Strategy, Transport, make_server_class
from tests.scenes import EventRecorder

from everserve import fibers
from everserve.combos import FiberUDPServer, ThreadPoolUDPServer, UDPServer
from everserve.events import Dropped, Failed
from everserve.fibers.engines import part
from everserve.handlers.base import BaseRequestHandler
from everserve.handlers.datagram import DatagramRequestHandler
from everserve.serving import make_server
from everserve.sockets.datagrams import DatagramSocket

DATAGRAMS = [pytest.param(t, id=t.name) for t in TRANSPORTS if not t.is_stream]
linux = pytest.mark.skipif(
    not hasattr(socket, "SO_PEERCRED"), reason="the control messages of Linux"
)


def echo(handler: Any) -> None:
    data, sock = handler.request
    sock.sendto(data, handler.client_address)


class Scene:
    """A server that does not serve yet, so that what the clients send is one batch."""

    def __init__(self, server: Any, kind: Transport, folder: Path, stack: ExitStack) -> None:
        self.server, self._kind, self._folder, self._stack = server, kind, folder, stack
        self._number = 0

    def client(self) -> Client:
        self._number += 1
        client = Client(self.server, self._kind, self._folder, self._number)
        return self._stack.enter_context(client)


@pytest.fixture(params=DATAGRAMS)
def make(
    request: pytest.FixtureRequest, strategy: Strategy, tmp_path: Path
) -> Iterator[Callable[..., Scene]]:
    kind: Transport = request.param
    with ExitStack() as stack:

        def make(handle: Callable[[Any], None], **attributes: Any) -> Scene:
            handler = type("UnderTest", (BaseRequestHandler,), {"handle": handle})
            cls = make_server_class(strategy, kind, **attributes)
            server = stack.enter_context(cls(kind.address(tmp_path), handler))
            return Scene(server, kind, tmp_path, stack)

        yield make


def test_all_of_a_batch_are_answered(make: Callable[..., Scene]) -> None:
    scene = make(echo)
    clients = [scene.client() for _ in range(3)]
    for client in clients:
        for number in range(3):
            client.send(b"%d" % number)
    with scene.server.running():
        for client in clients:
            assert sorted(client.receive() for _ in range(3)) == [b"0", b"1", b"2"]


def test_with_all_around_them_they_are_answered_too(make: Callable[..., Scene]) -> None:
    scene = make(echo, max_connections=100, request_timeout=3600.0)
    recorder = EventRecorder()
    scene.server.subscribe(recorder)
    clients = [scene.client() for _ in range(3)]
    for client in clients:
        client.send(b"ping")
    with scene.server.running():
        for client in clients:
            assert client.receive() == b"ping"


def test_what_a_handler_raises_costs_its_datagram_alone(make: Callable[..., Scene]) -> None:
    def handle(handler: Any) -> None:
        if handler.request[0] == b"bad":
            raise ValueError(handler.request[0])
        echo(handler)

    scene = make(handle, handle_error=lambda self, request, peer: None)
    client = scene.client()
    for message in (b"bad", b"good", b"bad"):
        client.send(message)
    with scene.server.running():
        assert client.receive() == b"good"
        assert client.ask(b"alive") == b"alive"


@pytest.fixture(params=DATAGRAMS)
def make_serial(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    kind: Transport = request.param
    with ExitStack() as stack:

        def make(handle: Callable[[Any], None], **attributes: Any) -> Scene:
            handler = type("UnderTest", (BaseRequestHandler,), {"handle": handle})
            cls = make_server_class(Strategy("serial"), kind, **attributes)
            server = stack.enter_context(cls(kind.address(tmp_path), handler))
            return Scene(server, kind, tmp_path, stack)

        yield make


def test_no_reply_waits_for_a_slow_handler(make_serial: Callable[..., Scene]) -> None:
    received = threading.Event()

    def handle(handler: Any) -> None:
        if handler.request[0] == b"slow":
            assert received.wait(LIMIT)
        echo(handler)

    scene = make_serial(handle)
    quick, slow = scene.client(), scene.client()
    quick.send(b"quick")
    slow.send(b"slow")
    with scene.server.running():
        assert quick.receive() == b"quick"
        received.set()
        assert slow.receive() == b"slow"


def test_the_replies_to_a_peer_stay_in_order(make_serial: Callable[..., Scene]) -> None:
    def handle(handler: Any) -> None:
        data, sock = handler.request
        for size in (10, 10, 200, 10, 10, 0, 10):
            sock.sendto(data.ljust(size, b".") if size else b"", handler.client_address)
        sock.sendto(bytearray(b"last"), handler.client_address)

    scene = make_serial(handle)
    clients = [scene.client() for _ in range(2)]
    for client in clients:
        client.send(b"1")
        client.send(b"2")
    with scene.server.running():
        for client in clients:
            sizes = [len(client.receive()) for _ in range(16)]
            assert sizes == [10, 10, 200, 10, 10, 0, 10, 4] * 2


def test_more_replies_than_a_batch_has_room_for(make_serial: Callable[..., Scene]) -> None:
    def handle(handler: Any) -> None:
        _, sock = handler.request
        for number in range(100):
            sock.sendto(b"%d" % number, handler.client_address)

    scene = make_serial(handle)
    client = scene.client()
    received: list[bytes] = []
    reader = Background(lambda: received.extend(client.receive() for _ in range(200)))
    client.send(b"1")
    client.send(b"2")
    with scene.server.running():
        reader.result()
    assert received == [b"%d" % number for number in range(100)] * 2


def test_a_stop_sees_the_request_in_progress(make_serial: Callable[..., Scene]) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def handle(handler: Any) -> None:
        begun.set()
        assert go_on.wait(LIMIT)

    scene = make_serial(handle)
    client = scene.client()
    client.send(b"1")
    client.send(b"2")
    with scene.server.running():
        assert begun.wait(LIMIT)
        (connection,) = scene.server.connections
        assert connection.peer == client.name
        assert connection.request[0] == b"1"
        thread = Background(lambda: scene.server.stop(LIMIT))
        go_on.set()
        assert thread.result().finished == 2
    assert len(scene.server.connections) == 0


VALUE: ContextVar[bytes] = ContextVar("VALUE", default=b"clean")


def test_each_handler_has_a_context_of_its_own(make_serial: Callable[..., Scene]) -> None:
    def handle(handler: Any) -> None:
        data, sock = handler.request
        sock.sendto(VALUE.get(), handler.client_address)
        VALUE.set(data)

    scene = make_serial(handle)
    client = scene.client()
    client.send(b"1")
    client.send(b"2")
    with scene.server.running():
        assert [client.receive(), client.receive()] == [b"clean", b"clean"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="a fork")
def test_a_child_of_a_handler_sends_no_reply_twice(make_serial: Callable[..., Scene]) -> None:
    def handle(handler: Any) -> None:
        data, sock = handler.request
        sock.sendto(data, handler.client_address)
        if data == b"fork":
            pid = os.fork()
            if pid == 0:
                try:
                    sock.sendto(b"child", handler.client_address)
                    handler.server.socket.close()
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)

    scene = make_serial(handle)
    client = scene.client()
    client.send(b"one")
    client.send(b"fork")
    client.send(b"end")
    with scene.server.running():
        replies = [client.receive() for _ in range(4)]
        assert client.ask(b"alive") == b"alive"
    assert sorted(replies) == [b"child", b"end", b"fork", b"one"]


def test_a_reply_that_fails_is_an_error_of_its_request(tmp_path: Path) -> None:
    kind = next(t for t in TRANSPORTS if t.name == "unixgram")
    failed: list[Any] = []

    def handle_error(server: Any, request: Any, peer: Any) -> None:
        failed.append((request[0], peer))

    def handle(handler: Any) -> None:
        try:
            echo(handler)
        except OSError:
            handler.server.handle_error(handler.request, handler.client_address)

    handler = type("UnderTest", (BaseRequestHandler,), {"handle": handle})
    cls = make_server_class(Strategy("serial"), kind, handle_error=handle_error)
    with cls(kind.address(tmp_path), handler) as server:
        with Client(server, kind, tmp_path, 1) as gone, Client(server, kind, tmp_path, 2) as there:
            name = gone.name
            gone.send(b"gone")
            there.send(b"there")
            gone.close()
            with server.running():
                assert there.receive() == b"there"
                assert there.ask(b"again") == b"again"
    assert failed == [(b"gone", name)]


# -- all addresses -----------------------------------------------------------------------------


@linux
@pytest.mark.parametrize(
    ("bound", "host", "family"),
    [
        ("", "127.0.0.2", socket.AF_INET),
        ("", "127.0.0.3", socket.AF_INET),
        ("::", "::1", socket.AF_INET6),
    ],
)
@pytest.mark.parametrize("count", [1, 5])
def test_the_reply_leaves_from_where_the_datagram_came_to(
    strategy: Strategy, bound: str, host: str, family: int, count: int
) -> None:
    def handle(handler: Any) -> None:
        data, sock = handler.request
        local = handler.peer.local
        sock.sendto(b"%s %s" % (data, local[0].encode()), handler.client_address)

    handler = type("UnderTest", (BaseRequestHandler,), {"handle": handle})
    udp = next(t for t in TRANSPORTS if t.name == "udp4")
    with make_server_class(strategy, udp)((bound, 0), handler) as server:
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.settimeout(LIMIT)
            client.connect((host, server.server_address[1]))  # hears no other address
            for _ in range(count):
                client.send(b"hello")
            with server.running():
                for _ in range(count):
                    assert client.recv(100) == b"hello " + host.encode()


@linux
def test_a_file_replies_from_there_too(strategy: Strategy) -> None:
    class Upper(DatagramRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.read().upper())

    udp = next(t for t in TRANSPORTS if t.name == "udp4")
    with make_server_class(strategy, udp)(("", 0), Upper) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, server.running():
            client.settimeout(LIMIT)
            client.connect(("127.0.0.9", server.server_address[1]))
            client.send(b"hello")
            assert client.recv(100) == b"HELLO"


# -- overload ----------------------------------------------------------------------------------


@linux
def test_what_the_kernel_drops_is_counted() -> None:
    handled = 0

    def handle(handler: Any) -> None:
        nonlocal handled
        handled += 1
        if handler.request[0] == b"last":
            echo(handler)

    handler = type("UnderTest", (BaseRequestHandler,), {"handle": handle})
    with UDPServer(("127.0.0.1", 0), handler) as server:
        recorder = EventRecorder()
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(LIMIT)
            client.connect(server.server_address)
            for _ in range(2000):
                client.send(bytes(100))
            with server.running():
                server.subscribe(recorder)
                client.settimeout(0.1)
                sent = 2000
                for _ in range(int(LIMIT / 0.1)):  # the first may find a full buffer too
                    client.send(b"last")
                    sent += 1
                    with suppress(TimeoutError):
                        assert client.recv(100) == b"last"
                        break
            dropped = server.refusals["receive_buffer"]
    assert 0 < handled < 2000
    assert handled + dropped == sent
    assert sum(event.count for event in recorder.of(Dropped)) == dropped


def test_the_rest_of_a_batch_goes_on_while_a_fiber_waits() -> None:
    released = fibers.Event()

    def handle(handler: Any) -> None:
        if handler.request[0] == b"wait":
            released.wait(LIMIT)
        else:
            echo(handler)
        if handler.request[0] == b"release":
            released.set()

    handler = type("UnderTest", (BaseRequestHandler,), {"handle": handle})
    with FiberUDPServer(("127.0.0.1", 0), handler) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(LIMIT)
            client.connect(server.server_address)
            for message in (b"one", b"wait", b"two", b"wait", b"release"):
                client.send(message)
            with server.running():
                assert [client.recv(100) for _ in range(3)] == [b"one", b"two", b"release"]


def test_a_flood_makes_a_bounded_number_of_fibers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part("flow", "server"), "MOST_DATAGRAMS", 10)
    released, most = fibers.Event(), 0
    filled = threading.Event()
    running = 0

    def handle(handler: Any) -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        if running == 10:
            filled.set()
        released.wait(LIMIT)
        running -= 1
        echo(handler)

    handler = type("UnderTest", (BaseRequestHandler,), {"handle": handle})
    with FiberUDPServer(("127.0.0.1", 0), handler) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(LIMIT)
            client.connect(server.server_address)
            for number in range(40):
                client.send(b"%d" % number)
            with server.running():
                assert filled.wait(LIMIT)
                server._everserve.strategy._hub.call_from_thread(released.set)
                received = sorted(int(client.recv(100)) for _ in range(40))
    assert received == list(range(40))
    assert most == 10


def test_a_pool_keeps_the_order_of_each_peer() -> None:
    seen: dict[Any, list[int]] = {}

    def handle(handler: Any) -> None:
        seen.setdefault(handler.client_address, []).append(int(handler.request[0]))
        echo(handler)

    handler = type("UnderTest", (BaseRequestHandler,), {"handle": handle})
    cls = type("Many", (ThreadPoolUDPServer,), {"max_workers": 4, "max_connections": 200})
    with cls(("127.0.0.1", 0), handler) as server, ExitStack() as stack:
        clients = []
        for _ in range(3):
            client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            client.settimeout(LIMIT)
            client.connect(server.server_address)
            clients.append(client)
        for number in range(50):
            for client in clients:
                client.send(b"%d" % number)
        with server.running():
            for client in clients:
                assert len([client.recv(100) for _ in range(50)]) == 50
    assert [numbers == list(range(50)) for numbers in seen.values()] == [True] * 3


def test_a_full_pool_drops_the_oldest_where_it_is_told_to() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def handle(handler: Any) -> None:
        if handler.request[0] == b"0":
            begun.set()
            assert go_on.wait(LIMIT)
        echo(handler)

    handler = type("UnderTest", (BaseRequestHandler,), {"handle": handle})
    options = {"max_workers": 1, "max_connections": 3, "overload": "shed-idle"}
    with type("Full", (ThreadPoolUDPServer,), options)(("127.0.0.1", 0), handler) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(LIMIT)
            client.connect(server.server_address)
            recorder = EventRecorder()
            server.subscribe(recorder)
            with server.running():
                client.send(b"0")
                assert begun.wait(LIMIT)
                for number in range(1, 6):
                    client.send(b"%d" % number)
                server._everserve.life.notifier.wait_until(
                    lambda: server.refusals.get("max_connections", 0) == 3
                )
                go_on.set()
                assert [client.recv(100) for _ in range(3)] == [b"0", b"4", b"5"]
    assert not recorder.of(Failed)


def test_an_inherited_socket_is_served_in_batches_too() -> None:
    class Echo(BaseRequestHandler):
        handle = echo

    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind(("", 0))
    with make_server(Echo, f"fd://{bound.detach()}", concurrency="serial") as server:
        assert isinstance(server.socket, DatagramSocket)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, server.running():
            client.settimeout(LIMIT)
            client.connect(("127.0.0.4", server.server_address[1]))
            client.send(b"hello")
            assert client.recv(100) == b"hello"


def test_an_error_of_a_signal_handler_ends_the_run() -> None:
    def raise_it(number: int, frame: Any) -> None:
        raise TimeoutError("of the signal handler")

    def handle(handler: Any) -> None:
        signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, raise_it)
    try:
        handler = type("UnderTest", (BaseRequestHandler,), {"handle": handle})
        with UDPServer(("127.0.0.1", 0), handler) as server:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"now", server.server_address)
                client.sendto(b"and later", server.server_address)
                with pytest.raises(TimeoutError, match="of the signal handler"):
                    server.serve_forever()
    finally:
        signal.signal(signal.SIGUSR1, before)
