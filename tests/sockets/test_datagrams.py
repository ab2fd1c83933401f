"""``sockets.datagrams``: datagrams are received whole, or the truncation is reported."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests.clients import LIMIT

from everserve.sockets.datagrams import LARGEST, Datagram, receive


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(LIMIT)
        yield receiver


@pytest.fixture
def sender(receiver: socket.socket) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())
        yield sender


class NoMessages:
    """A socket without ``recvmsg``, as on Windows."""

    def __init__(self, sock: socket.socket) -> None:
        self.recvfrom = sock.recvfrom


@pytest.mark.parametrize("wrap", [lambda sock: sock, NoMessages])
@pytest.mark.parametrize(
    ("sent", "size", "received", "truncated"),
    [
        (b"", 5, b"", False),
        (b"1234", 5, b"1234", False),
        (b"12345", 5, b"12345", False),
        (b"123456", 5, b"12345", True),
        (bytes(65507), LARGEST, bytes(65507), False),
    ],
)
def test_receive(
    wrap: Any,
    sent: bytes,
    size: int,
    received: bytes,
    truncated: bool,
    receiver: socket.socket,
    sender: socket.socket,
) -> None:
    sender.send(sent)
    receiving = wrap(receiver)
    datagram, peer = receive(receiving, size, wait=True)
    assert datagram == (received, receiving)
    assert datagram.truncated is truncated
    assert peer == sender.getsockname()


def test_without_a_datagram_it_raises_at_once(receiver: socket.socket) -> None:
    receiver.setblocking(True)
    with pytest.raises(BlockingIOError):
        receive(receiver, 100, wait=False)


def test_a_datagram_is_the_pair_that_handlers_unpack() -> None:
    datagram = Datagram((b"data", None))  # type: ignore[arg-type]
    data, sock = datagram
    assert (data, sock) == (b"data", None)
    assert isinstance(datagram, tuple)
    assert datagram.truncated is False
