"""``sockets.tls`` with real clients: `http.client`, curl, `openssl s_client`; under real handlers."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import shutil
import socket
import socketserver
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT, Background, connect

from everserve.sockets.tls import TLS, TLSSocket

CURL, OPENSSL = shutil.which("curl"), shutil.which("openssl")
BODY = os.urandom(1 << 20)


class TLSServer(socketserver.ThreadingTCPServer):
    """The handshake is done where the request runs; the plain socket stays the server's."""

    daemon_threads = True

    def __init__(self, handler: Any, tls: TLS, faults: list[BaseException | None]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.tls = tls
        self.faults = faults

    def finish_request(self, request: Any, client_address: Any) -> None:
        secure = self.tls.wrap(request)
        secure.settimeout(LIMIT)
        secure.do_handshake()
        super().finish_request(secure, client_address)  # type: ignore[arg-type]
        secure.close_notify(LIMIT)

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.faults.append(sys.exc_info()[1])


class Upper(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.request, TLSSocket)
        for line in self.rfile:
            self.wfile.write(line.upper())


class Pages(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(BODY)

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"]))[::-1])

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Log nothing."""


Serve = Callable[..., Any]


@pytest.fixture
def faults() -> list[BaseException | None]:
    """What went wrong in the server; a test that expects something clears it."""
    return []


@pytest.fixture
def serve(certificates: Certificates, faults: list[BaseException | None]) -> Iterator[Serve]:
    """Serve a handler over TLS; gives the address."""
    with contextlib.ExitStack() as stack:

        def start(handler: Any, **options: Any) -> Any:
            server = TLSServer(handler, TLS(*certificates.server, **options), faults)
            thread = Background(server.serve_forever, 0.01)
            stack.callback(server.server_close)
            stack.callback(thread.result)
            stack.callback(server.shutdown)
            return server.server_address

        yield start
    assert not faults


def test_a_stream_request_handler(serve: Serve, certificates: Certificates) -> None:
    address = serve(Upper)
    context = certificates.client_context()
    with context.wrap_socket(connect(address), server_hostname="localhost") as client:
        client.suppress_ragged_eofs = False
        with client.makefile("rwb") as stream:
            stream.write(b"hello\nworld\n")
            stream.flush()
            assert stream.readline() == b"HELLO\n"
            assert stream.readline() == b"WORLD\n"
        client.unwrap()


def test_http_client(serve: Serve, certificates: Certificates) -> None:
    host, port = serve(Pages)
    client = http.client.HTTPSConnection(
        "localhost", port, timeout=LIMIT, context=certificates.client_context()
    )
    client._create_connection = lambda _a, *rest: socket.create_connection((host, port), *rest)  # type: ignore[attr-defined]
    with contextlib.closing(client):
        for _ in range(2):
            client.request("GET", "/")
            assert client.getresponse().read() == BODY
        client.request("POST", "/", BODY)
        assert client.getresponse().read() == BODY[::-1]


def curl(address: Any, certificates: Certificates, *options: str) -> bytes:
    if CURL is None:
        pytest.skip("curl is not installed")
    host, port = address
    done = subprocess.run(
        [
            CURL,
            *("--silent", "--show-error", "--max-time", str(LIMIT), "--noproxy", "*"),
            *("--cacert", str(certificates.authority)),
            *("--resolve", f"localhost:{port}:{host}", *options, f"https://localhost:{port}/"),
        ],
        check=False,
        capture_output=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl(serve: Serve, certificates: Certificates, version: str) -> None:
    address = serve(Pages, alpn=["http/1.1"])
    assert curl(address, certificates, "--tls-max", version) == BODY


def test_curl_with_a_certificate(serve: Serve, certificates: Certificates) -> None:
    address = serve(Pages, client_ca=certificates.authority)
    cert, key = certificates.client
    assert curl(address, certificates, "--cert", str(cert), "--key", str(key)) == BODY


def s_client(address: Any, certificates: Certificates, sent: bytes, *options: str) -> str:
    if OPENSSL is None:
        pytest.skip("openssl is not installed")
    host, port = address
    done = subprocess.run(
        [
            OPENSSL,
            "s_client",
            *("-connect", f"{host}:{port}", "-servername", "localhost"),
            *("-CAfile", str(certificates.authority), "-verify_return_error", *options),
        ],
        input=sent,
        check=False,
        capture_output=True,
        timeout=LIMIT,
    )
    return (done.stdout + done.stderr).decode(errors="replace")


@pytest.mark.parametrize(("option", "version"), [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")])
def test_s_client(serve: Serve, certificates: Certificates, option: str, version: str) -> None:
    output = s_client(serve(EchoOnce), certificates, b"hello\n", "-ign_eof", option)
    assert "Verify return code: 0 (ok)" in output
    assert version in output
    assert "HELLO" in output
    assert "Secure Renegotiation IS supported" in output or version == "TLSv1.3"
    assert "Compression: NONE" in output


class EchoOnce(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(self.rfile.readline().upper())


@contextlib.contextmanager
def conversation(address: Any, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`openssl s_client` that is used line by line; stderr comes with stdout."""
    if OPENSSL is None:
        pytest.skip("openssl is not installed")
    host, port = address
    command = [OPENSSL, "s_client", "-connect", f"{host}:{port}", *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def exchange(process: subprocess.Popen[bytes], line: bytes, answer: bytes) -> None:
    """Send a line, and read until `answer` comes."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line)
    process.stdin.flush()
    while answer not in (received := process.stdout.readline()):
        assert received, f"it ended without {answer!r}"


def test_renegotiation_is_refused(
    serve: Serve, certificates: Certificates, faults: list[BaseException | None]
) -> None:
    """The line "R" asks for it; the client gives up, and the server goes on."""
    address = serve(Upper)
    with conversation(address, "-tls1_2") as process:
        exchange(process, b"first\n", b"FIRST")
        exchange(process, b"R\n", b"no renegotiation")
        process.wait(LIMIT)
    context = certificates.client_context()
    with context.wrap_socket(connect(address), server_hostname="localhost") as client:
        client.sendall(b"x\n")
        assert client.recv(10) == b"X\n"
    assert all(isinstance(fault, ssl.SSLError) for fault in faults)
    faults.clear()


def test_new_keys_are_answered(serve: Serve) -> None:
    """The line "K" is a KeyUpdate that wants an answer (RFC 8446, section 4.6.3)."""
    with conversation(serve(Upper), "-tls1_3", "-quiet", "-no_ign_eof") as process:
        exchange(process, b"first\n", b"FIRST")
        for _ in range(3):
            exchange(process, b"K\n", b"KEYUPDATE")
            exchange(process, b"second\n", b"SECOND")


def test_an_old_version_is_refused(serve: Serve, faults: list[BaseException | None]) -> None:
    with conversation(serve(Upper), "-tls1_1", "-cipher", "ALL:@SECLEVEL=0") as process:
        exchange(process, b"", b"Cipher is (NONE)")
        process.wait(LIMIT)
    assert [getattr(fault, "reason", fault) for fault in faults] == ["UNSUPPORTED_PROTOCOL"]
    faults.clear()
