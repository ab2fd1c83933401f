"""``lifecycle.session``: what a peer sends, for one handler."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests.clients import LIMIT, Background

from everserve.errors import NoReplyAddressError
from everserve.lifecycle.session import Session
from everserve.sockets.datagrams import Datagram


class Keeper:
    """A fake table."""

    def __init__(self) -> None:
        self.limit: float | None = None
        self.count = 0

    def budget(self) -> float | None:
        return self.limit

    def withheld(self, state: Any) -> None:
        self.count += 1


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        socket.socket(type=socket.SOCK_DGRAM) as own,
        socket.socket(type=socket.SOCK_DGRAM) as peer,
    ):
        for sock in (own, peer):
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(LIMIT)
        yield own, peer


def session_of(data: bytes, sock: Any = None, peer: Any = "peer", keeper: Any = None) -> Session:
    return Session(Datagram((data, sock)), peer, keeper or Keeper())


def more(data: bytes) -> Datagram:
    return Datagram((data, None))  # type: ignore[arg-type]


def test_it_is_the_pair_of_the_first_datagram() -> None:
    assert session_of(b"first") == (b"first", None)


def test_what_comes_is_taken_in_order() -> None:
    session = session_of(b"1")
    assert session.state.put(more(b"2"), 9, "newest") is True
    datagrams = session.datagrams()
    assert [next(datagrams), next(datagrams)] == [b"1", b"2"]
    assert session.state.received == 2


def test_a_handler_waits_for_the_next() -> None:
    session = session_of(b"1")
    taken = Background(list, session.datagrams())
    session.state.put(more(b"2"), 9, "newest")
    session.state.finish()
    assert taken.result() == [b"1", b"2"]


def test_what_came_before_the_end_is_still_taken() -> None:
    session = session_of(b"1")
    session.state.put(more(b"2"), 9, "newest")
    session.state.finish()
    assert session.state.put(more(b"3"), 9, "newest") is False
    assert list(session.datagrams()) == [b"1", b"2"]


def test_a_cut_discards_what_waits() -> None:
    session = session_of(b"1")
    session.state.put(more(b"2"), 9, "newest")
    session.cut()
    assert session.state.unread == 1  # the first is the request itself
    session.cut()
    assert session.state.unread == 1
    assert list(session.datagrams()) == []


@pytest.mark.parametrize(("drops", "kept"), [("newest", [b"1", b"2"]), ("oldest", [b"2", b"3"])])
def test_no_more_waits_than_the_limit(drops: str, kept: list[bytes]) -> None:
    session = session_of(b"1")
    results = [session.state.put(more(data), 2, drops) for data in (b"2", b"3")]
    assert results[0] is True
    assert results[1] == more(b"3" if drops == "newest" else b"1")
    session.state.finish()
    assert list(session.datagrams()) == kept


def test_it_says_which_datagram_was_cut() -> None:
    session = session_of(b"1")
    long = more(b"2")
    long.truncated = True
    session.state.put(long, 9, "newest")
    session.state.finish()
    assert [(data, session.truncated) for data in session.datagrams()] == [
        (b"1", False),
        (b"2", True),
    ]


def test_it_sends(sockets: tuple[socket.socket, socket.socket]) -> None:
    own, peer = sockets
    session = session_of(b"1", own, peer.getsockname())
    assert session.state.send(b"reply")
    assert peer.recvfrom(100) == (b"reply", own.getsockname())
    assert (session.state.sent, session.traffic().delivered, session.traffic().received) == (
        5,
        5,
        1,
    )


def test_the_budget_of_replies(sockets: tuple[socket.socket, socket.socket]) -> None:
    own, peer = sockets
    keeper = Keeper()
    keeper.limit = 3.0
    session = session_of(b"12", own, peer.getsockname(), keeper)
    assert session.state.send(b"x" * 4)
    assert not session.state.send(b"y" * 3)  # 7 of 6
    assert session.state.send(b"z" * 2)
    assert not session.state.send(b"y")
    session.state.put(more(b"3"), 9, "newest")
    assert session.state.send(b"3" * 3)
    assert keeper.count == 2
    session.state.validated = True
    assert session.state.send(b"v" * 1000)
    assert [len(peer.recv(2000)) for _ in range(4)] == [4, 2, 3, 1000]


def test_a_sender_without_an_address_gets_no_reply() -> None:
    with pytest.raises(NoReplyAddressError):
        session_of(b"1", None, "").state.send(b"reply")
