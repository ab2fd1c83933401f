"""Message handlers with deadlines and TLS: what a connection waits in must not matter."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest
import trustme
from tests.clients import LIMIT
from tests.scenes import EventRecorder

import everserve
from everserve.events import DeadlineMissed, Finished
from everserve.messages import LineRequestHandler


class Upper(LineRequestHandler[Any, Any]):
    def handle_message(self, message: bytes) -> bytes:
        return message.upper()


@pytest.mark.parametrize("concurrency", ["threads", "pool", "fibers"])
def test_an_idle_connection_is_cut(concurrency: Any) -> None:
    recorder = EventRecorder()
    server = everserve.make_server(
        Upper, "tcp://127.0.0.1:0", concurrency=concurrency, idle_timeout=0.2
    )
    server.subscribe(recorder)
    with server.running() as address, socket.create_connection(address, LIMIT) as client:
        client.sendall(b"a\n")
        assert client.recv(100) == b"A\n"
        assert client.recv(100) == b""
        (missed,) = recorder.wait_for(DeadlineMissed, 1)
        assert missed.deadline == "idle_timeout"
        recorder.wait_for(Finished, 1)


@pytest.mark.parametrize("concurrency", ["threads", "pool", "fibers"])
def test_over_tls(concurrency: Any) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    server = everserve.make_server(Upper, "tls://127.0.0.1:0", concurrency=concurrency, tls=context)
    with server.running(grace=LIMIT) as address:
        plain = socket.create_connection(address, LIMIT)
        with trusting.wrap_socket(plain, server_hostname="localhost") as client:
            for line in (b"a", b"b"):
                client.sendall(line + b"\n")
                assert client.recv(100) == line.upper() + b"\n"
            (connection,) = server.connections
            assert connection.push(b"pushed")
            assert client.recv(100) == b"pushed\n"
            server.stop(LIMIT)
            assert client.recv(100) == b""
