"""``AsyncStreamRequestHandler`` behind the steps of admission: a PROXY header, TLS, STARTTLS."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT

import everserve
from everserve.admission.access import Networks


class Who(everserve.AsyncStreamRequestHandler[Any, Any]):
    """Says who the client is, and whether TLS is on; for ``STARTTLS`` changes to it."""

    async def handle(self) -> None:
        while line := await self.rfile.readline():
            if line == b"STARTTLS\n":
                self.wfile.write(b"go\n")
                await self.start_tls()
                continue
            tls = self.peer.tls
            self.wfile.write(f"{self.client_address[0]} {tls and tls.version}\n".encode())
            await self.wfile.flush()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def context(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority)


def test_a_header_then_a_handshake(certificates: Certificates) -> None:
    server: Any = everserve.make_server(
        Who,
        "tls://127.0.0.1:0",
        concurrency="asyncio",
        tls=everserve.TLS(*certificates.server),
        proxy_protocol=True,
        trusted_proxies=Networks.of("127.0.0.0/8"),
        idle_timeout=LIMIT,
    )
    with server.running() as address, socket.create_connection(address, LIMIT) as plain:
        plain.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\r\n")
        with context(certificates.authority).wrap_socket(
            plain, server_hostname="localhost"
        ) as client:
            client.sendall(b"who\n")
            assert client.recv(100) == b"192.0.2.7 TLSv1.3\n"


def test_a_header_that_never_comes_is_given_up() -> None:
    server: Any = everserve.make_server(
        Who,
        "tcp://127.0.0.1:0",
        concurrency="asyncio",
        proxy_protocol=True,
        trusted_proxies=Networks.of("127.0.0.0/8"),
        proxy_timeout=0.05,
    )
    with server.running() as address, socket.create_connection(address, LIMIT) as silent:
        assert silent.recv(1) == b""
    assert server.refusals == {"proxy_timeout": 1}


def test_tls_in_the_middle_of_a_connection(certificates: Certificates) -> None:
    server: Any = everserve.make_server(
        Who,
        "tcp://127.0.0.1:0",
        concurrency="asyncio",
        tls=everserve.TLS(*certificates.server),
        implicit_tls=False,
    )
    with server.running() as address, socket.create_connection(address, LIMIT) as plain:
        plain.sendall(b"who\n")
        assert plain.recv(100) == b"127.0.0.1 None\n"
        plain.sendall(b"STARTTLS\n")
        assert plain.recv(100) == b"go\n"
        with context(certificates.authority).wrap_socket(
            plain, server_hostname="localhost"
        ) as client:
            client.sendall(b"who\n")
            assert client.recv(100) == b"127.0.0.1 TLSv1.3\n"
