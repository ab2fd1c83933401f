"""A server of everserve, a real HAProxy in front of it, and a handler that reports the client."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT

import everserve
from everserve.serving import make_server

FORKS_AMONG_THREADS = "ignore:This process .* is multi-threaded:DeprecationWarning"
TRUSTED: dict[str, Any] = {"proxy_protocol": True, "trusted_proxies": "127.0.0.0/8"}


class Report(everserve.StreamRequestHandler[Any, Any]):
    """Sends the peer as a line of JSON."""

    def handle(self) -> None:
        self.rfile.readline()
        peer = self.peer
        found = {
            "client_address": self.client_address,
            "address": peer.address,
            "proxy_address": peer.proxy_address,
            "version": peer.proxy and peer.proxy.version,
            "command": peer.proxy and peer.proxy.command.name,
            "destination": peer.proxy and peer.proxy.destination,
            "tls": peer.tls and {"sni": peer.tls.sni, "alpn": peer.tls.alpn},
        }
        if peer.proxy is not None and peer.proxy.ssl is not None:
            ssl = peer.proxy.ssl
            found["ssl"] = {"secure": ssl.secure, "common_name": ssl.common_name}
        self.wfile.write(json.dumps(found).encode() + b"\n")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(
    params=[
        "serial",
        "threads",
        "pool",
        pytest.param("forks", marks=pytest.mark.filterwarnings(FORKS_AMONG_THREADS)),
        "fibers",
    ]
)
def concurrency(request: pytest.FixtureRequest) -> str:
    return request.param  # type: ignore[no-any-return]


Serve = Callable[..., Any]


@pytest.fixture
def serve(concurrency: str) -> Iterator[Serve]:
    """Serve in the background until the test is over; returns the server."""
    running: list[Any] = []

    def make(handler: Any = Report, **settings: Any) -> Any:
        server = make_server(handler, "tcp://127.0.0.1:0", concurrency=concurrency, **settings)
        block = server.running(grace=LIMIT)
        block.__enter__()
        running.append(block)
        return server

    yield make
    for block in running:
        block.__exit__(None, None, None)


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Put HAProxy in front of ``server``. Returns its address. ``how``: its options for the server."""
    command = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if command is None:
        pytest.skip("haproxy is not installed: apt-get install haproxy")
    processes: list[subprocess.Popen[bytes]] = []

    def start(server: Any, how: str, bind: str = "", more: str = "") -> Any:
        listener = socket.create_server(("127.0.0.1", 0))  # listens before HAProxy has begun
        host, port = server.server_address
        config = tmp_path / f"haproxy-{len(processes)}.cfg"
        config.write_text(
            f"global\n  maxconn 100\n  nbthread 1\n  ssl-default-bind-options ssl-min-ver TLSv1.2\n"
            f"defaults\n  mode tcp\n  timeout connect {LIMIT:.0f}s\n"
            f"  timeout client {LIMIT:.0f}s\n  timeout server {LIMIT:.0f}s\n"
            f"frontend in\n  bind fd@{listener.fileno()} {bind}\n  default_backend out\n"
            f"backend out\n  server one {host}:{port} {how}\n{more}"
        )
        with listener:
            processes.append(
                subprocess.Popen(
                    [command, "-db", "-q", "-f", str(config)],
                    pass_fds=[listener.fileno()],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            )
            return listener.getsockname()

    yield start
    for process in processes:
        process.terminate()
        output, _ = process.communicate()
        assert b"ALERT" not in output.replace(b"exited with code 143", b""), output.decode()


def talk(client: socket.socket) -> dict[str, Any]:
    """Read the report of the peer over a connection."""
    client.settimeout(LIMIT)
    client.sendall(b"who\n")
    with client.makefile("rb") as file:
        line = file.readline()
    assert line, "no line was received"
    report: dict[str, Any] = json.loads(line)
    return report
