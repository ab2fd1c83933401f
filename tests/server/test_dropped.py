"""A server that is dropped gives all back at once, by reference counting: the collector is off."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from ssl import SSLContext
from time import monotonic
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT, Background

import everserve
from everserve.combos import CONCURRENCY
from everserve.events import Accepted
from everserve.server.tcp import TCPServer

pytestmark = [
    pytest.mark.usefixtures("_no_collector"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Lines(everserve.LineRequestHandler):
    """Its connections are parked between messages."""

    def handle_message(self, message: bytes) -> bytes:
        return message


class Stream(everserve.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


class Datagrams(everserve.DatagramRequestHandler):
    def handle(self) -> None:
        self.wfile.write(self.rfile.read())


class Session(everserve.DatagramSessionHandler):
    def handle(self) -> None:
        for data in self.datagrams:
            self.send(data)


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


Make = Callable[[], TCPServer]
Talk = Callable[[TCPServer], None]


def never_run(make: Make, talk: Talk) -> weakref.ref[TCPServer]:
    return weakref.ref(make())


def closed(make: Make, talk: Talk) -> weakref.ref[TCPServer]:
    server = make()
    server.server_close()
    return weakref.ref(server)


def stopped(make: Make, talk: Talk) -> weakref.ref[TCPServer]:
    server = make()
    with server.running():
        talk(server)
    return weakref.ref(server)


def shut_down(make: Make, talk: Talk) -> weakref.ref[TCPServer]:
    """It is not closed: its threads and descriptors are still there when it is dropped."""
    server = make()
    thread = Background(server.serve_forever)
    talk(server)
    server.shutdown()
    thread.result()
    return weakref.ref(server)


LIVES = (never_run, closed, stopped, shut_down)

SERVERS = {
    "tcp": ("tcp://127.0.0.1:0", Stream),
    "tcp messages": ("tcp://127.0.0.1:0", Lines),
    "tls": ("tls://127.0.0.1:0", Stream),
    "unix": ("unix:{folder}/server", Stream),
    "udp": ("udp://127.0.0.1:0", Datagrams),
    "udp sessions": ("udp://127.0.0.1:0", Session),
    "unixgram": ("unixgram:{folder}/server", Datagrams),
}


def talk_to(server: TCPServer, context: SSLContext | None, folder: Path) -> None:
    """Two clients, one of which has gone before the other comes; the first leaves first."""
    client: socket.socket
    for number in range(2):
        client = socket.socket(server.socket.family, server.socket.type)
        with client:
            client.settimeout(LIMIT)
            if server.socket.type == socket.SOCK_DGRAM and server.socket.family == socket.AF_UNIX:
                client.bind(str(folder / f"client-{number}"))
            client.connect(server.server_address)
            if context is not None:
                client = context.wrap_socket(client, server_hostname="localhost")
            with client:
                client.sendall(b"ping\n")
                assert client.recv(100) == b"ping\n"
                if server.socket.type == socket.SOCK_STREAM:
                    client.shutdown(socket.SHUT_WR)  # a child of fork has a copy of this socket
        for path in folder.glob("client-*"):
            path.unlink()


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def join_others(before: set[threading.Thread]) -> list[threading.Thread]:
    """Threads end a moment after the last connection, or the server: the waits have no other end."""
    others = [thread for thread in threading.enumerate() if thread not in before]
    for thread in others:
        thread.join(LIMIT)
    return [thread for thread in others if thread.is_alive()]


def collect_all(before: set[threading.Thread]) -> None:
    """Collect until no thread is left: one that has just handled a request refers to its server yet."""
    end = monotonic() + LIMIT
    gc.collect()
    while others := [thread for thread in threading.enumerate() if thread not in before]:
        assert monotonic() < end, others
        others[0].join(0.01)
        gc.collect()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system does not list them")
@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_it_leaves_nothing(
    concurrency: Any, kind: str, tmp_path: Path, certificates: Certificates
) -> None:
    if kind == "udp sessions" and concurrency in ("serial", "forks", "asyncio"):
        pytest.skip("sessions need threads, a pool or fibers")
    form, handler = SERVERS[kind]
    tls = {"tls": everserve.TLS(*certificates.server)} if kind == "tls" else {}
    context = certificates.client_context() if kind == "tls" else None

    def make() -> TCPServer:
        address = form.format(folder=tmp_path)
        return everserve.make_server(handler, address, concurrency=concurrency, **tls)

    def talk(server: TCPServer) -> None:
        talk_to(server, context, tmp_path)

    threads = set(threading.enumerate())
    shut_down(make, talk)  # what is made once for the process
    join_others(threads)
    (tmp_path / "server").unlink(missing_ok=True)
    for life in LIVES:
        assert_leaves_nothing(life, make, talk)
        (tmp_path / "server").unlink(missing_ok=True)


def assert_leaves_nothing(life: Callable[[Make, Talk], Any], make: Make, talk: Talk) -> None:
    gc.collect()
    threads, before = set(threading.enumerate()), descriptors()
    server = life(make, talk)
    left = join_others(threads)
    assert server() is None, life
    assert left == [], life
    assert descriptors() == before, life
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    assert [found for found in gc.garbage if is_ours(found)] == [], life
    gc.garbage.clear()


def is_ours(found: object) -> bool:
    return type(found).__module__.startswith("everserve") or isinstance(found, socket.socket)


@pytest.mark.skipif("forks" not in CONCURRENCY, reason="the system cannot fork")
def test_children_go_on_without_it(certificates: Certificates) -> None:
    context = certificates.client_context()

    def serve() -> tuple[socket.socket, set[int], weakref.ref[TCPServer]]:
        server: Any = everserve.make_server(
            Stream,
            "tls://127.0.0.1:0",
            concurrency="forks",
            tls=everserve.TLS(*certificates.server),
        )
        accepted = threading.Event()
        server.subscribe(lambda event: accepted.set() if isinstance(event, Accepted) else None)
        thread = Background(server.serve_forever)
        client = socket.create_connection(server.server_address, LIMIT)
        assert accepted.wait(LIMIT)
        server.shutdown()  # the handshake is still counted as one in progress
        thread.result()
        return client, set(server.active_children), weakref.ref(server)

    before, threads = descriptors(), set(threading.enumerate())
    client, children, server = serve()
    assert join_others(threads) == []
    assert server() is None
    assert descriptors() - before == {str(client.fileno())}
    with context.wrap_socket(client, server_hostname="localhost") as client:
        client.sendall(b"more\n")
        assert client.recv(100) == b"more\n"
        client.shutdown(socket.SHUT_WR)
    for child in children:
        os.waitpid(child, 0)
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    assert [found for found in gc.garbage if is_ours(found)] == []


def serve_in_a_cycle(concurrency: Any, end: str) -> None:
    class Mine(everserve.LineRequestHandler):
        def handle_message(self, message: bytes) -> bytes:
            return name_of(server)

    server = everserve.make_server(Mine, "tcp://127.0.0.1:0", concurrency=concurrency)
    thread = Background(server.serve_forever)
    with socket.create_connection(server.server_address, LIMIT) as client:
        client.sendall(b"ping\n")
        assert client.recv(100) == name_of(server) + b"\n"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
    server.shutdown()
    thread.result()
    getattr(server, end)()


def name_of(server: TCPServer) -> bytes:
    return type(server).__name__.encode()


@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_it_may_be_in_a_cycle_of_the_program(
    concurrency: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector finalises all objects of a cycle in any order, wake-ups first perhaps."""
    failures: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", failures.append)
    gc.collect()
    threads, before = set(threading.enumerate()), descriptors()
    for end in ("server_close", "shutdown"):
        serve_in_a_cycle(concurrency, end)
    collect_all(threads)
    assert descriptors() == before
    assert failures == []


AT_THE_END = """
import everserve

server = everserve.make_server(everserve.BaseRequestHandler, "tcp://127.0.0.1:0")
lock = server._everserve.watchdog._lock
import threading
holder = threading.Thread(target=lock.acquire, daemon=True)
holder.start()
holder.join()  # as a daemon that the end of the interpreter has stopped
server.socket.close()
"""


def test_the_end_of_the_interpreter_waits_for_no_lock() -> None:
    subprocess.run([sys.executable, "-c", AT_THE_END], check=True, timeout=LIMIT)
