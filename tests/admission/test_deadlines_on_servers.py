"""Deadlines and stops cut a connection, whatever has its socket: every strategy, every wrap."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT
from tests.scenes import EventRecorder

import everserve
from everserve.combos import CONCURRENCY, server_class
from everserve.events import DeadlineMissed, Opened

FORKS_AMONG_THREADS = "ignore:This process .* is multi-threaded:DeprecationWarning"
pytestmark = pytest.mark.filterwarnings(FORKS_AMONG_THREADS)


class Reads(everserve.StreamRequestHandler[Any, Any]):
    def handle(self) -> None:
        self.wfile.write(b"in\n")
        self.wfile.flush()
        self.rfile.read()

    def finish(self) -> None:
        super().finish()
        self.request.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def context(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.server)
    return context


def plain(server_type: type, context: ssl.SSLContext) -> tuple[type, type]:
    return server_type, Reads


def own_get_request(server_type: Any, context: ssl.SSLContext) -> tuple[type, type]:
    class Own(server_type):  # type: ignore[misc]
        def get_request(self) -> Any:
            return self.socket.accept()

    return Own, Reads


def listener_with_timeout(server_type: Any, context: ssl.SSLContext) -> tuple[type, type]:
    class Own(server_type):  # type: ignore[misc]
        def server_activate(self) -> None:
            super().server_activate()
            self.socket.settimeout(LIMIT)

    return Own, Reads


def tls_in_get_request(server_type: Any, context: ssl.SSLContext) -> tuple[type, type]:
    class Own(server_type):  # type: ignore[misc]
        def get_request(self) -> Any:
            request, address = self.socket.accept()
            request.setblocking(True)
            wrapped = context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
            return wrapped, address

    return Own, Reads


def tls_in_setup(server_type: type, context: ssl.SSLContext) -> tuple[type, type]:
    class Wraps(Reads):
        def setup(self) -> None:
            self.request = context.wrap_socket(self.request, server_side=True)
            super().setup()

    return server_type, Wraps


def detached_in_setup(server_type: type, context: ssl.SSLContext) -> tuple[type, type]:
    class Wraps(Reads):
        def setup(self) -> None:
            self.request = socket.socket(fileno=self.request.detach())
            super().setup()

    return server_type, Wraps


class Wrapper:
    """No socket, but around one, as pyOpenSSL's connection is."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def wrapper_of_get_request(server_type: Any, context: ssl.SSLContext) -> tuple[type, type]:
    class Own(server_type):  # type: ignore[misc]
        def get_request(self) -> Any:
            request, address = self.socket.accept()
            request.setblocking(True)
            return Wrapper(request), address

    return Own, Reads


KINDS = [plain, own_get_request, listener_with_timeout]
WRAPS = [tls_in_get_request, tls_in_setup, detached_in_setup, wrapper_of_get_request]
WAYS = [(word, kind) for word in CONCURRENCY for kind in KINDS] + [
    (word, kind) for word in CONCURRENCY if word != "fibers" for kind in WRAPS
]
ways = pytest.mark.parametrize(
    ("word", "kind"), WAYS, ids=[f"{word}-{kind.__name__}" for word, kind in WAYS]
)


def connect(address: Any, kind: Callable[..., Any], certificates: Certificates) -> socket.socket:
    client = socket.create_connection(address, LIMIT)
    if not kind.__name__.startswith("tls"):
        return client
    trusting = ssl.create_default_context(cafile=certificates.authority)
    return trusting.wrap_socket(client, server_hostname="localhost")


ENDS = (ConnectionError, ssl.SSLError)
"""What a connection that is cut raises at its peer, also in a handshake."""


def read_end(client: socket.socket) -> None:
    """Read until the connection ends, in order or not."""
    with suppress(*ENDS):
        while client.recv(100):
            pass


@ways
@pytest.mark.parametrize("name", ["idle_timeout", "request_timeout"])
def test_a_deadline(
    word: str,
    kind: Callable[..., Any],
    name: str,
    context: ssl.SSLContext,
    certificates: Certificates,
) -> None:
    made, handler = kind(type("Made", (server_class(word, "tcp"),), {name: 0.1}), context)
    recorder = EventRecorder()
    server = made(("127.0.0.1", 0), handler)
    server.subscribe(recorder)
    with server.running(grace=LIMIT) as address:
        with suppress(*ENDS), connect(address, kind, certificates) as client:
            read_end(client)
        (missed,) = recorder.wait_for(DeadlineMissed)
        assert (missed.deadline, missed.is_cut) == (name, True)


@ways
def test_a_stop(
    word: str, kind: Callable[..., Any], context: ssl.SSLContext, certificates: Certificates
) -> None:
    if word == "serial":
        pytest.skip("a serial server is in its one handler")
    made, handler = kind(server_class(word, "tcp"), context)
    recorder = EventRecorder()
    server = made(("127.0.0.1", 0), handler)
    server.subscribe(recorder)
    with server.running() as address, connect(address, kind, certificates) as client:
        assert client.recv(100) == b"in\n"
        recorder.wait_for(Opened)
        report = server.stop(0)
        read_end(client)
    assert len(report.cut) == 1
    assert report.unfinished == ()


def test_the_event_of_a_datagram_does_not_say_that_it_was_cut(tmp_path: Path) -> None:
    class Late(everserve.DatagramRequestHandler[Any, Any]):
        def handle(self) -> None:
            recorder.wait_for(DeadlineMissed)

    class Server(everserve.ThreadingUDPServer):
        request_timeout = 0.01

    recorder = EventRecorder()
    server = Server(("127.0.0.1", 0), Late)
    server.subscribe(recorder)
    with server.running(grace=LIMIT) as address, socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(b"data", address)
        (missed,) = recorder.wait_for(DeadlineMissed)
    assert not missed.is_cut
    assert str(missed).startswith("late, and not cut: #1")
