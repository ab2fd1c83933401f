"""Channels: what is sent reaches each member, until it leaves or ends."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Any

import pytest
from tests.clients import Background, connect

from everserve.combos import server_class
from everserve.messages import Channel, JSONRequestHandler, LineRequestHandler


class Member(LineRequestHandler[Any, Any]):
    """Joins at ``join``, leaves at ``leave``, and sends everything else to the others."""

    room: Channel

    def handle_message(self, line: bytes) -> bytes:
        if line == b"join":
            self.room.join(self)
            self.room.join(self)
        elif line == b"leave":
            self.room.leave(self)
        else:
            return b"%d" % self.room.send(line, but=self)
        return b"%d %d" % (len(self.room), self in self.room)


@pytest.fixture(params=["threads", "pool", "fibers"])
def server(request: pytest.FixtureRequest) -> Any:
    handler = type("Handler", (Member,), {"room": Channel()})
    server = server_class(request.param, "tcp")(("127.0.0.1", 0), handler)
    with server.running(grace=20):
        yield server


class Client:
    def __init__(self, server: Any, stack: ExitStack) -> None:
        self.socket = stack.enter_context(connect(server.server_address))
        self.lines = stack.enter_context(self.socket.makefile("rb"))

    def ask(self, line: bytes) -> bytes:
        self.socket.sendall(line + b"\n")
        return self.read()

    def read(self) -> bytes:
        return self.lines.readline().rstrip(b"\n")


def test_members_join_and_leave(server: Any) -> None:
    with ExitStack() as stack:
        one, two, three = (Client(server, stack) for _ in range(3))
        assert one.ask(b"join") == b"1 1"
        assert two.ask(b"join") == b"2 1"
        assert one.ask(b"hello") == b"1"
        assert two.read() == b"hello"
        assert three.ask(b"hi") == b"2"
        assert [one.read(), two.read()] == [b"hi", b"hi"]
        assert two.ask(b"leave") == b"1 0"
        assert two.ask(b"leave") == b"1 0"
        assert one.ask(b"again") == b"0"


def test_a_member_that_ends_leaves(server: Any) -> None:
    room = server.RequestHandlerClass.room
    with ExitStack() as stack:
        one = Client(server, stack)
        with ExitStack() as short:
            assert Client(server, short).ask(b"join") == b"1 1"
        while len(room):
            one.ask(b"are you there?")
        assert one.ask(b"hello") == b"0"


def test_an_entry_of_connections_is_a_member(server: Any) -> None:
    channel = Channel()
    with ExitStack() as stack:
        client = Client(server, stack)
        client.ask(b"join")
        (connection,) = server.connections
        channel.join(connection)
        assert connection in channel
        assert channel.send(b"to you") == 1
        assert client.read() == b"to you"
        connection.disconnect()
        assert client.read() == b""


def test_all_members_get_the_same_order(server: Any) -> None:
    channel = Channel()
    with ExitStack() as stack:
        clients = [Client(server, stack) for _ in range(3)]
        for client in clients:
            client.ask(b"join")
        for connection in server.connections:
            channel.join(connection)

        def send_many(name: int) -> None:
            for number in range(50):
                channel.send(b"%d-%d" % (name, number))

        senders = [Background(send_many, name) for name in range(3)]
        seen = [[client.read() for _ in range(150)] for client in clients]
        for sender in senders:
            sender.result()
    assert seen[0] == seen[1] == seen[2]


def test_a_message_is_encoded_by_each_codec() -> None:
    channel = Channel()

    class Joining(JSONRequestHandler[Any, Any]):
        def handle_message(self, message: Any) -> str:
            channel.join(self)
            return "joined"

    with server_class("fibers", "tcp")(("127.0.0.1", 0), Joining) as server, server.running():
        with ExitStack() as stack:
            client = Client(server, stack)
            assert client.ask(b"1") == b'"joined"'
            assert channel.send({"a": [1]}) == 1
            assert client.read() == b'{"a":[1]}'


def test_a_datagram_cannot_join() -> None:
    channel = Channel()
    errors: list[str] = []

    class Joining(LineRequestHandler[Any, Any]):
        def handle_message(self, message: bytes) -> bytes:
            for call in (channel.join, lambda handler: setattr(handler, "key", b"a")):
                try:
                    call(self)
                except TypeError as error:
                    errors.append(str(error))
            self.push(b"pushed")
            self.disconnect()
            return b"replied"

    server = server_class("serial", "udp")(("127.0.0.1", 0), Joining)
    with server, server.running(), connect_datagrams(server.server_address) as client:
        client.send(b"hello")
        assert [client.recv(100), client.recv(100)] == [b"pushed\n", b"replied\n"]
    assert errors == [
        "Joining has no connection: only streams join a channel",
        "only a connection of an everserve server has a key",
    ]


def connect_datagrams(address: Any) -> Any:
    client = socket.socket(type=socket.SOCK_DGRAM)
    client.settimeout(20)
    client.connect(address)
    return client
