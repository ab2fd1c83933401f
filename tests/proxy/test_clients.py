"""Common clients: ``openssl s_client`` and ``curl`` connect to servers with TLS."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
from typing import Any

import pytest
from tests.certificates import Certificates, Pair
from tests.clients import LIMIT
from tests.proxy.conftest import Serve

import everserve
from everserve.sockets.tls import TLS


def run(*command: object, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    name = str(command[0])
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    return subprocess.run(
        [str(word) for word in command], input=data, capture_output=True, timeout=LIMIT, check=False
    )


def s_client(server: Any, certificates: Certificates, *more: object) -> Any:
    host, port = server.server_address
    return run(
        "openssl", "s_client", "-connect", f"{host}:{port}", "-servername", "localhost",
        "-CAfile", certificates.authority, "-verify_return_error", "-verify_hostname", "localhost",
        "-quiet", *more, data=b"who\n",
    )  # fmt: skip


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_s_client(serve: Serve, certificates: Certificates, version: str) -> None:
    done = s_client(serve(Upper, tls=TLS(*certificates.server)), certificates, version)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b"WHO\n"


def test_openssl_s_client_with_a_certificate(serve: Serve, certificates: Certificates) -> None:
    tls = TLS(*certificates.server, client_ca=certificates.authority, alpn=["one"])
    cert, key = certificates.client
    done = s_client(serve(tls=tls), certificates, "-cert", cert, "-key", key, "-alpn", "one")
    assert json.loads(done.stdout)["tls"] == {"sni": "localhost", "alpn": "one"}


def test_openssl_s_client_without_the_certificate(serve: Serve, certificates: Certificates) -> None:
    tls = TLS(*certificates.server, client_ca=certificates.authority)
    done = s_client(serve(Upper, tls=tls), certificates)
    assert b"WHO" not in done.stdout


def test_openssl_s_client_with_starttls(serve: Serve, certificates: Certificates) -> None:
    tls = TLS(*certificates.server)
    server = serve(SMTP, tls=tls, implicit_tls=False)
    done = s_client(server, certificates, "-starttls", "smtp")
    assert done.returncode == 0, done.stderr.decode()
    assert b"WHO\n" in done.stdout


class Upper(everserve.StreamRequestHandler[Any, Any]):
    def handle(self) -> None:
        self.wfile.write(self.rfile.readline().upper())


class SMTP(everserve.StreamRequestHandler[Any, Any]):
    """The part of SMTP that STARTTLS needs (RFC 3207)."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        self.rfile.readline()
        self.wfile.write(b"250-here\r\n250 STARTTLS\r\n")
        assert self.rfile.readline() == b"STARTTLS\r\n"
        self.wfile.write(b"220 go on\r\n")
        self.start_tls()
        self.wfile.write(self.rfile.readline().upper())


class Web(http.server.BaseHTTPRequestHandler):
    """The standard library's handler, unchanged."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"{self.path} for {self.client_address[0]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


def curl(server: Any, certificates: Certificates, *more: object, path: str = "/") -> Any:
    host, port = server.server_address
    url = f"https://localhost:{port}"
    return run(
        "curl", "--silent", "--show-error", "--noproxy", "*", "--cacert", certificates.authority,
        "--resolve", f"localhost:{port}:{host}", *more, f"{url}{path}",
    )  # fmt: skip


def test_curl_and_a_handler_of_http_server(serve: Serve, certificates: Certificates) -> None:
    server = serve(Web, tls=TLS(*certificates.server, alpn=["http/1.1"]))
    done = curl(server, certificates, path="/[1-3]")
    assert done.stderr == b""
    assert done.stdout == b"".join(b"/%d for 127.0.0.1\n" % number for number in (1, 2, 3))


def test_curl_sends_much(serve: Serve, certificates: Certificates, tmp_path: Any) -> None:
    much = tmp_path / "much"
    much.write_bytes(bytes(range(256)) * 4096)
    server = serve(Web, tls=TLS(*certificates.server))
    done = curl(server, certificates, "--data-binary", f"@{much}", "--expect100-timeout", "20")
    assert done.stderr == b""
    assert done.stdout == much.read_bytes()


@pytest.mark.parametrize("name", ["expired", "wrong_name"])
def test_curl_refuses_a_wrong_certificate(
    serve: Serve, certificates: Certificates, name: str
) -> None:
    pair: Pair = getattr(certificates, name)
    done = curl(serve(Web, tls=TLS(*pair)), certificates)
    assert done.returncode == 60
    assert done.stdout == b""
