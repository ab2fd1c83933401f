"""``sockets.datagrams``: datagrams are received whole, or the truncation is reported."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.clients import LIMIT
from tests.engines import loaded

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


# -- batches, on both engines ------------------------------------------------------------------


@pytest.fixture(params=["native", "python"])
def batches(request: pytest.FixtureRequest) -> Iterator[Any]:
    parts = loaded(request.param)
    with parts.DatagramSocket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


@pytest.fixture
def peer(batches: socket.socket) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(LIMIT)
        peer.connect(batches.getsockname())
        yield peer


def start(target: Any) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def test_a_batch_is_no_larger_than_asked(batches: Any, peer: socket.socket) -> None:
    for number in range(5):
        peer.send(b"%d" % number)
    exchange = batches.exchange(start)
    own = peer.getsockname()
    first = exchange.receive(batches, LARGEST, 3)
    assert first == [((b"%d" % n, batches), own) for n in range(3)]
    assert [type(request) for request, _ in first] == [Datagram] * 3
    assert len(exchange.receive(batches, LARGEST, 64)) == 2
    assert exchange.receive(batches, LARGEST, 64) == []
    assert not exchange.cut


def test_one_that_was_cut_is_flagged(batches: Any, peer: socket.socket) -> None:
    peer.send(b"12345")
    peer.send(b"1")
    exchange = batches.exchange(start)
    (cut, _), (whole, _) = exchange.receive(batches, 3, 64)
    assert cut == (b"123", batches)
    assert cut.truncated
    assert whole == (b"1", batches)
    assert exchange.cut


def test_replies_leave_when_the_batch_ends(batches: Any, peer: socket.socket) -> None:
    peer.send(b"1")
    peer.send(b"2")
    exchange = batches.exchange(start)
    received = exchange.receive(batches, LARGEST, 64)
    exchange.hold(len(received))
    for (data, sock), address in received:
        assert sock.sendto(data, address) == 1
    batches.sendto(b"3", peer.getsockname())  # not overtaken by another call
    assert list(exchange.release()) == []
    assert [peer.recv(100) for _ in range(3)] == [b"1", b"2", b"3"]


def test_after_the_close_nothing_is_sent(batches: Any, peer: socket.socket) -> None:
    peer.send(b"1")
    ((_, address),) = batches.exchange(start).receive(batches, LARGEST, 64)
    batches.close()
    with pytest.raises(OSError):
        batches.sendto(b"reply", address)


def test_many_peers_get_their_own_replies(batches: Any) -> None:
    exchange = batches.exchange(start)
    with ExitStack() as stack:
        peers = [
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            for _ in range(400)
        ]
        for _ in range(2):
            for number, peer in enumerate(peers):
                peer.settimeout(LIMIT)
                peer.connect(batches.getsockname())
                peer.send(b"%d" % number)
                if number % 50 == 49:
                    received = exchange.receive(batches, LARGEST, 64)
                    exchange.hold(len(received))
                    for (data, sock), address in received:
                        sock.sendto(data, address)
                    assert list(exchange.release()) == []
            assert [int(peer.recv(100)) for peer in peers] == list(range(400))
