"""``admission.peer``: the peer, as a handler sees it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.clients import connect, read_all

import everserve
from everserve.admission.peer import Credentials, Peer
from everserve.serving import make_server
from everserve.sockets.datagrams import Datagram


class Show(everserve.BaseRequestHandler[Any, Any]):
    seen: list[Peer]

    def handle(self) -> None:
        assert self.peer is self.peer
        self.seen.append(self.peer)


@pytest.fixture
def show() -> type[Show]:
    return type("Show", (Show,), {"seen": []})


def test_over_tcp(show: type[Show]) -> None:
    with make_server(show, "tcp://127.0.0.1:0", concurrency="threads").running() as address:
        with connect(address) as client:
            own = client.getsockname()
            read_all(client)
    assert show.seen == [Peer(own, "tcp")]


def test_over_a_unix_socket(show: type[Show], tmp_path: Path) -> None:
    with make_server(show, f"unix:{tmp_path}/s", concurrency="threads").running() as address:
        with connect(address) as client:
            read_all(client)
    (peer,) = show.seen
    assert peer.transport == "unix"
    assert peer.credentials == Credentials(os.getpid(), os.getuid(), os.getgid())


@pytest.mark.parametrize(
    ("family", "kind", "transport"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, "tcp"),
        (socket.AF_INET6, socket.SOCK_DGRAM, "udp"),
        (socket.AF_UNIX, socket.SOCK_STREAM, "unix"),
        (socket.AF_UNIX, socket.SOCK_DGRAM, "unixgram"),
    ],
)
def test_the_transport(family: int, kind: int, transport: str) -> None:
    with socket.socket(family, kind) as sock:
        request = sock if kind == socket.SOCK_STREAM else Datagram((b"", sock))
        assert Peer.of(None, request, "someone").transport == transport


def test_a_proxy_of_a_datagram() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        datagram = Datagram((b"data", sock))
        datagram.proxy = header = object()  # type: ignore[assignment]
        datagram.reply_to = ("127.0.0.1", 53)
        peer = Peer.of(None, datagram, ("192.0.2.7", 1))
    assert (peer.proxy, peer.proxy_address) == (header, ("127.0.0.1", 53))


def test_a_proxy_that_has_disconnected() -> None:
    connection = SimpleNamespace(proxy=object(), tls=None)
    with socket.socket() as sock:
        assert Peer.of(connection, sock, ("192.0.2.7", 1)).proxy_address is None


def test_an_object_with_the_interface_of_a_socket() -> None:
    assert Peer.of(None, object(), "someone") == Peer("someone", "tcp")


def test_credentials_that_the_system_does_not_give() -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.close()
    assert Peer.of(None, sock, "").credentials is None


def test_it_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Peer("someone", "tcp").address = "another"  # type: ignore[misc]
