"""The contract, over streams: all bytes, in both directions, until either side ends."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
from tests.clients import Background
from tests.contract.kinds import Client, Gate

pytestmark = pytest.mark.usefixtures("stream")

MakeServer = Callable[..., Any]
MakeClient = Callable[[Any], Client]
MIB = bytes(range(256)) * 4096


def test_a_mebibyte_there_and_back(make_server: MakeServer, make_client: MakeClient) -> None:
    def handle(handler: Any) -> None:
        handler.wfile.write(handler.rfile.read())

    server = make_server(handle)
    with server.running():
        client = make_client(server)

        def send() -> None:
            client.send(MIB)
            client.socket.shutdown(socket.SHUT_WR)

        sending = Background(send)
        assert client.socket.makefile("rb").read() == MIB
        sending.result()


def test_a_mebibyte_by_plain_calls(make_server: MakeServer, make_client: MakeClient) -> None:
    def handle(handler: Any) -> None:
        received = 0
        while part := handler.request.recv(65536):
            received += len(part)
        handler.request.sendall(b"%d\n" % received)
        handler.request.sendall(MIB)

    server = make_server(handle)
    with server.running():
        client = make_client(server)
        client.send(MIB)
        client.socket.shutdown(socket.SHUT_WR)
        assert client.receive() == b"%d\n" % len(MIB)
        assert client.socket.makefile("rb").read() is not None


def test_a_conversation(make_server: MakeServer, make_client: MakeClient) -> None:
    def handle(handler: Any) -> None:
        for line in handler.rfile:
            handler.wfile.write(line.upper())

    server = make_server(handle)
    with server.running():
        client = make_client(server)
        for line in (b"one\n", b"two\n", b"three\n"):
            assert client.ask(line) == line.upper()
        client.socket.shutdown(socket.SHUT_WR)
        client.end()


def test_the_servers_half_ends_first(make_server: MakeServer, make_client: MakeClient) -> None:
    def handle(handler: Any) -> None:
        handler.wfile.write(b"over\n")
        handler.wfile.flush()
        handler.request.shutdown(socket.SHUT_WR)
        handler.rfile.read()

    server = make_server(handle)
    with server.running():
        client = make_client(server)
        assert client.receive() == b"over\n"
        client.end()
        client.send(b"still recorder\n")
        client.reset()


def test_a_reset_ends_only_its_connection(
    make_server: MakeServer, make_client: MakeClient, gate: Gate
) -> None:
    def handle(handler: Any) -> None:
        if handler.rfile.readline() == b"hold\n":
            gate.hold()
            handler.wfile.write(MIB)
            handler.rfile.read()
        handler.wfile.write(b"alive\n")

    server = make_server(handle)
    with server.running():
        client = make_client(server)
        client.send(b"hold\nunread\n")
        gate.wait_entered()
        client.reset()
        gate.open()
        assert make_client(server).ask(b"ping\n") == b"alive\n"


def test_a_client_that_disconnects_at_once(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    def handle(handler: Any) -> None:
        handler.wfile.write(handler.rfile.readline())

    server = make_server(handle)
    for _ in range(3):
        make_client(server).close()  # before it is accepted
    with server.running():
        make_client(server).close()
        assert make_client(server).ask(b"ping\n") == b"ping\n"


def test_the_peer_sees_the_end_when_the_handler_ends(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(lambda handler: None)
    with server.running():
        make_client(server).end()
