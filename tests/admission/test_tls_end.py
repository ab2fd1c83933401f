"""The end of a TLS stream: close_notify after a complete answer, none after a truncated one."""

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import Certificates

import everserve


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder: Path = tmp_path_factory.mktemp("certificates")
    return Certificates(folder)


class Answers(everserve.StreamRequestHandler[Any, Any]):
    def handle(self) -> None:
        if self.rfile.readline() == b"fail\n":
            raise LookupError("in the middle of the answer")
        self.wfile.write(b"whole\n")


@pytest.mark.parametrize("kind", [everserve.ThreadingTCPServer, everserve.FiberTCPServer])
@pytest.mark.parametrize(("asked", "is_whole"), [(b"answer\n", True), (b"fail\n", False)])
def test_only_a_handler_that_did_not_fail_ends_the_stream_in_order(
    kind: type[everserve.TCPServer], asked: bytes, is_whole: bool, certificates: Certificates
) -> None:
    attributes = {
        "tls": everserve.TLS(*certificates.server),
        "handle_error": lambda *_: None,
    }
    server = type("Secure", (kind,), attributes)(("127.0.0.1", 0), Answers)
    context = certificates.client_context()
    with server.running() as address, socket.create_connection(address) as plain:
        with context.wrap_socket(
            plain, server_hostname="localhost", suppress_ragged_eofs=False
        ) as client:
            client.sendall(asked)
            if is_whole:
                assert client.recv(100) == b"whole\n"
                assert client.recv(100) == b""
            else:
                with pytest.raises(ssl.SSLError, match="EOF"):
                    client.recv(100)
