"""A program that makes its listener an ``ssl.SSLSocket``, as ``http.server.HTTPSServer`` does.

The handshake runs where the request runs, whatever server of whatever library it is.
"""

from __future__ import annotations

import socket
import socketserver
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT, Background, connect, read_all, serving
from tests.contract.kinds import Strategy
from tests.scenes import EventRecorder

from everserve import mixins
from everserve.combos import server_class
from everserve.events import Refused
from everserve.handlers.stream import StreamRequestHandler

MIXINS = {
    "threads": "ThreadingMixIn",
    "pool": "ThreadPoolMixIn",
    "fibers": "FiberMixIn",
    "forks": "ForkingMixIn",
}


class Upper(StreamRequestHandler[Any, Any]):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(f"{self.request.version()} ".encode() + line.upper())


class StandardUpper(socketserver.StreamRequestHandler):
    handle = Upper.handle


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=["everserve", "standard library"])
def make(
    strategy: Strategy, certificates: Certificates, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Any]]:
    """``make(**attributes)``: a server whose ``socket`` a program has wrapped."""
    servers: list[Any] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.server)
    is_own = request.param == "everserve"
    if not is_own and strategy.name not in MIXINS:
        pytest.skip("the standard library serves alone")

    def server_activate(server: Any) -> None:
        super(type(server), server).server_activate()
        server.socket = context.wrap_socket(server.socket, server_side=True)

    def make(**attributes: Any) -> Any:
        bases = (
            (server_class(strategy.name, "tcp"),)
            if is_own
            else (getattr(mixins, MIXINS[strategy.name]), socketserver.TCPServer)
        )
        names = {"server_activate": server_activate, **attributes}
        cls = type("SecuredServer", bases, names)
        servers.append(cls(("127.0.0.1", 0), Upper if is_own else StandardUpper))
        return servers[-1]

    yield make
    for server in servers:
        server.server_close()


def ask(address: Any, certificates: Certificates) -> bytes:
    context = certificates.client_context()
    with context.wrap_socket(connect(address), server_hostname="localhost") as client:
        client.sendall(b"hello\n")
        answer = client.recv(100)
        client.shutdown(socket.SHUT_WR)
        return answer


def test_it_serves(make: Callable[..., Any], certificates: Certificates) -> None:
    server = make()
    with serving(server) as address:
        assert ask(address, certificates) == b"TLSv1.3 HELLO\n"
        assert ask(address, certificates) == b"TLSv1.3 HELLO\n"
    assert "accept" not in vars(server.socket)


def test_a_silent_client_blocks_no_one(
    concurrent: Strategy, make: Callable[..., Any], certificates: Certificates
) -> None:
    unwaited = {"daemon_threads": True, "block_on_close": False, "shutdown_grace": 0}
    with serving(make(max_workers=1, **unwaited)) as address:
        with connect(address):
            assert ask(address, certificates) == b"TLSv1.3 HELLO\n"
            assert ask(address, certificates) == b"TLSv1.3 HELLO\n"


def test_a_handshake_that_fails_is_refused(
    strategy: Strategy,
    make: Callable[..., Any],
    certificates: Certificates,
    recorder: EventRecorder,
) -> None:
    failed: list[Any] = []
    server = make(handle_error=lambda *arguments: failed.append(arguments))
    server.subscribe(recorder)
    with serving(server) as address:
        with connect(address) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            read_all(client)
        assert [event.reason for event in recorder.wait_for(Refused)] == ["handshake"]
        assert ask(address, certificates) == b"TLSv1.3 HELLO\n"
    assert not failed


def test_handle_request(
    strategy: Strategy, make: Callable[..., Any], certificates: Certificates
) -> None:
    server = make(timeout=LIMIT)
    asking = Background(ask, server.server_address, certificates)
    server.handle_request()
    assert asking.result() == b"TLSv1.3 HELLO\n"


def test_get_request_of_the_program(
    strategy: Strategy, make: Callable[..., Any], certificates: Certificates
) -> None:
    """It accepts from ``self.socket`` itself, as ``ssl``'s documentation does."""

    def get_request(server: Any) -> Any:
        return server.socket.accept()

    with serving(make(get_request=get_request)) as address:
        assert ask(address, certificates) == b"TLSv1.3 HELLO\n"
