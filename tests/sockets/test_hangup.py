"""``sockets.hangup``: whether a connection has ended."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Callable, Iterator

import pytest
from tests.clients import connect, reset

from everserve.sockets import tcpinfo
from everserve.sockets.hangup import is_hung_up

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["TCP", "TCP by poll", "Unix"])
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """The server's end and the peer's; for TCP also as on a system without TCP_INFO."""
    if request.param == "TCP by poll":
        monkeypatch.setattr(tcpinfo, "_TCP_INFO", None)
    if request.param == "Unix":
        ours, peer = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            peer = connect(listener.getsockname())
            ours, _ = listener.accept()
    with ours, peer:
        yield ours, peer


def end_of_peer(ours: socket.socket, peer: socket.socket) -> None:
    """Wait until the peer's action has arrived."""
    ours.settimeout(20)
    try:
        assert ours.recv(1) == b""
    except ConnectionResetError:
        pass


def peer_shuts_down(ours: socket.socket, peer: socket.socket) -> None:
    peer.shutdown(socket.SHUT_WR)
    end_of_peer(ours, peer)


def peer_resets(ours: socket.socket, peer: socket.socket) -> None:
    reset(peer)
    end_of_peer(ours, peer)


def both_shut_down(ours: socket.socket, peer: socket.socket) -> None:
    peer_shuts_down(ours, peer)
    ours.shutdown(socket.SHUT_WR)


WAYS: dict[str, tuple[Callable[[socket.socket, socket.socket], object], bool]] = {
    "open": (lambda _ours, _peer: None, False),
    "data is waiting": (lambda _ours, peer: peer.send(b"x"), False),
    "we have shut down": (lambda ours, _peer: ours.shutdown(socket.SHUT_WR), False),
    "the peer has shut down": (peer_shuts_down, False),
    "both have shut down": (both_shut_down, True),
    "cut": (lambda ours, _peer: ours.shutdown(socket.SHUT_RDWR), True),
    "reset": (peer_resets, True),
    "closed": (lambda ours, _peer: ours.close(), True),
}


@pytest.mark.parametrize("how", WAYS)
def test_a_connection(pair: Pair, how: str) -> None:
    happen, expected = WAYS[how]
    happen(*pair)
    assert is_hung_up(pair[0]) is expected


def test_a_system_without_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcpinfo, "_TCP_INFO", None)
    monkeypatch.delattr(select, "poll")
    ours, peer = socket.socketpair()
    with ours, peer:
        assert is_hung_up(ours) is None
    assert is_hung_up(ours) is True


class FailingPoll:
    """A poll(2) for which the system has no memory, or whose descriptor was closed meanwhile."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def register(self, descriptor: int, events: int) -> None:
        pass

    def poll(self, timeout: int) -> list[tuple[int, int]]:
        raise self.error


@pytest.mark.parametrize(
    ("error", "expected"), [(OSError(errno.ENOMEM, "no memory"), None), (ValueError("-1"), True)]
)
def test_a_poll_that_fails(
    monkeypatch: pytest.MonkeyPatch, error: Exception, expected: bool | None
) -> None:
    monkeypatch.setattr(select, "poll", lambda: FailingPoll(error))
    ours, peer = socket.socketpair()
    with ours, peer:
        assert is_hung_up(ours) is expected
