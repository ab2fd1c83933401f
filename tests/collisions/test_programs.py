"""Programs written for ``socketserver``: each works as on the standard library."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import Background, ask, connect, read_all
from tests.collisions.kinds import LIMIT, Kind, kinds

TCP = [kind for kind in kinds() if kind.values[0].transport == "tcp"]
IN_ONE_PROCESS = [kind for kind in TCP if kind.values[0].strategy != "forks"]


@contextmanager
def served(kind: Kind, program: Any) -> Iterator[Any]:
    with program as server, kind.serving(server):
        yield server


@pytest.mark.parametrize("kind", TCP)
def test_a_server_with_its_own_loop(kind: Kind) -> None:
    class Handler(kind.module.StreamRequestHandler):  # type: ignore[misc, name-defined]
        def handle(self) -> None:
            self.wfile.write(self.server._loop.encode())

    class Server(kind.server_class):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(("127.0.0.1", 0), Handler)
            self._loop = "my asyncio loop"

    with served(kind, Server()) as server:
        assert ask(server.server_address, b"") == b"my asyncio loop"
    assert server._loop == "my asyncio loop"


@pytest.mark.parametrize("kind", TCP)
def test_a_server_with_a_tls_context_that_its_handlers_use(
    kind: Kind, certificates: Certificates
) -> None:
    class Handler(kind.module.BaseRequestHandler):  # type: ignore[misc, name-defined]
        def handle(self) -> None:
            self.request.settimeout(LIMIT)
            with self.server.tls.wrap_socket(self.request, server_side=True) as connection:
                connection.sendall(connection.recv(100).upper())

    server = kind.server_class(("127.0.0.1", 0), Handler)
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.tls.load_cert_chain(*certificates.server)
    trusting = certificates.client_context()
    with served(kind, server):
        with connect(server.server_address, limit=LIMIT) as plain:
            with trusting.wrap_socket(plain, server_hostname="localhost") as client:
                client.sendall(b"hello")
                assert client.recv(100) == b"HELLO"


@pytest.mark.parametrize("kind", IN_ONE_PROCESS)
def test_a_server_that_keeps_its_connections(kind: Kind) -> None:
    class Handler(kind.module.StreamRequestHandler):  # type: ignore[misc, name-defined]
        def setup(self) -> None:
            super().setup()
            self.peer = self.client_address
            self.server.connections[self.peer] = self.rfile

        def handle(self) -> None:
            self.wfile.write(b"%d" % len(self.server.connections))

        def finish(self) -> None:
            del self.server.connections[self.peer]
            super().finish()

    class Server(kind.server_class):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.connections: dict[Any, Any] = {}
            super().__init__(("127.0.0.1", 0), Handler)

    with Server() as server:
        with kind.serving(server):
            assert ask(server.server_address, b"") == b"1"
    assert server.connections == {}


@pytest.mark.parametrize("kind", IN_ONE_PROCESS)
def test_a_server_that_starts_and_stops_itself(kind: Kind) -> None:
    class Server(kind.server_class):  # type: ignore[misc, name-defined]
        state = "new"
        running = False

        def __init__(self) -> None:
            super().__init__(("127.0.0.1", 0), kind.handler())
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._stopped = threading.Event()

        def start(self) -> None:
            self.state, self.running = "up", True
            self._thread.start()

        def _run(self) -> None:
            self.serve_forever(kind.poll_interval)
            self._stopped.set()

        def stop(self) -> str:
            self.running = False
            self.shutdown()
            assert self._stopped.wait(LIMIT)
            self._thread.join(LIMIT)
            self.server_close()
            self.state = "down"
            return self.state

    server = Server()
    server.start()
    assert ask(server.server_address, b"ping") == b"PING"
    assert (server.state, server.running) == ("up", True)
    assert Background(server.stop).result(LIMIT) == "down"
    assert (server.state, server.running) == ("down", False)


@pytest.mark.parametrize("kind", IN_ONE_PROCESS)
def test_a_server_that_lets_its_clients_subscribe(kind: Kind) -> None:
    class Handler(kind.module.StreamRequestHandler):  # type: ignore[misc, name-defined]
        def handle(self) -> None:
            topic = self.rfile.readline().strip().decode()
            self.wfile.write(self.server.subscribe(topic, self.client_address))

    class Server(kind.server_class):  # type: ignore[misc, name-defined]
        access = {"news": "read", "orders": "none"}
        limits = ["news"]

        def subscribe(self, topic: str, who: tuple[str, int]) -> bytes:
            allowed = self.access[topic] == "read" and topic in self.limits
            return b"yes" if allowed else b"no"

    with served(kind, Server(("127.0.0.1", 0), Handler)) as server:
        assert ask(server.server_address, b"news\n") == b"yes"
        assert ask(server.server_address, b"orders\n") == b"no"


@pytest.mark.parametrize("kind", TCP)
def test_a_handler_with_its_own_deadline_and_state(kind: Kind, folder: Path) -> None:
    class Handler(kind.module.StreamRequestHandler):  # type: ignore[misc, name-defined]
        deadline = "never"
        max_line = "80"

        def setup(self) -> None:
            super().setup()
            self._peer = self._connection = None
            self.cancelled = []

        def start_tls(self) -> str:
            return "not here"

        def handle(self) -> None:
            line = self.rfile.readline()[: int(self.max_line)].strip().decode()
            words = [line, self.deadline, self.start_tls(), str(self.cancelled), str(self._peer)]
            self.wfile.write("|".join(words).encode())

    with served(kind, kind.server_class(("127.0.0.1", 0), Handler)) as server:
        with connect(server.server_address, limit=LIMIT) as client:
            client.sendall(b"ping\n")
            assert read_all(client) == b"ping|never|not here|[]|None"
