"""``lifecycle.faults``: whether an exception is the fault of the peer or of the handler."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.clients import LIMIT, connect, reset

from everserve.errors import LineTooLong, NoReplyAddressError
from everserve.lifecycle.faults import peer_is_gone
from everserve.sockets import tcpinfo
from everserve.sockets.datagrams import Datagram

GONE = [ConnectionResetError, BrokenPipeError, ConnectionAbortedError]


@pytest.fixture(params=["TCP", "Unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    if request.param == "Unix":
        ours, peers = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            peers = connect(listener.getsockname())
            ours, _ = listener.accept()
    with ours, peers:
        yield ours, peers


@pytest.mark.parametrize("kind", GONE)
def test_with_the_peer_connected_it_is_the_handlers(kind: type[OSError], pair: Any) -> None:
    ours, peers = pair
    assert not peer_is_gone(kind(), ours)
    peers.shutdown(socket.SHUT_WR)  # only half of it has ended
    assert not peer_is_gone(kind(), ours)


@pytest.mark.parametrize("kind", GONE)
def test_after_a_disconnect_it_is_the_peers(kind: type[OSError], pair: Any) -> None:
    ours, peers = pair
    ours.sendall(b"unread")
    reset(peers)
    with pytest.raises(GONE[0] if ours.family == socket.AF_INET else GONE[1]):
        ours.sendall(b"x" * 100)
    assert peer_is_gone(kind(), ours)
    ours.close()
    assert peer_is_gone(kind(), ours)


@pytest.mark.parametrize("request_", [None, object()])
@pytest.mark.parametrize("kind", GONE)
def test_an_object_that_is_not_a_socket(kind: type[OSError], request_: Any) -> None:
    assert peer_is_gone(kind(), request_)


class Left:
    """A Unix datagram and its sender, which closes."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "peer")
        self.ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.peers = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.peers.bind(self.address)
        self.request = Datagram((b"data", self.ours))

    def reply(self) -> OSError:
        with pytest.raises(OSError) as raised:
            self.ours.sendto(b"reply", self.address)
        return raised.value


@pytest.fixture
def left(tmp_path: Path) -> Iterator[Left]:
    left = Left(tmp_path)
    with left.ours, left.peers:
        yield left


@pytest.mark.parametrize(
    ("removed", "kind"), [(False, ConnectionRefusedError), (True, FileNotFoundError)]
)
def test_the_peer_of_a_unix_datagram_has_closed(left: Left, removed: bool, kind: type) -> None:
    left.peers.close()
    if removed:
        Path(left.address).unlink()
    error = left.reply()
    assert type(error) is kind
    assert peer_is_gone(error, left.request, left.address)
    assert peer_is_gone(error, left.request, left.address.encode())


@pytest.mark.parametrize("kind", [ConnectionRefusedError, FileNotFoundError])
def test_the_peer_is_open_and_another_socket_has_closed(left: Left, kind: type[OSError]) -> None:
    assert not peer_is_gone(kind(), left.request, left.address)
    assert not peer_is_gone(kind(), left.request, None)
    left.peers.close()
    assert not peer_is_gone(kind(), left.ours, left.address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        assert not peer_is_gone(kind(), Datagram((b"data", udp)), left.address)


def test_an_unknown_state_of_the_peer(left: Left) -> None:
    assert not peer_is_gone(FileNotFoundError(), left.request, "x" * 200)


@pytest.mark.parametrize("kind", GONE)
def test_a_datagram_has_no_connection_to_lose(kind: type[OSError]) -> None:
    request = Datagram((b"", None))  # type: ignore[arg-type]
    assert not peer_is_gone(kind(), request)
    assert peer_is_gone(NoReplyAddressError("unbound"), request)


def test_a_line_that_never_ends_is_the_peers_fault(pair: Any) -> None:
    assert peer_is_gone(LineTooLong("more than 100 bytes"), pair[0])


def test_a_timeout_is_the_peers_if_the_socket_has_one(pair: Any) -> None:
    ours, _ = pair
    assert not peer_is_gone(TimeoutError("of a queue"), ours)
    ours.settimeout(LIMIT)
    assert peer_is_gone(TimeoutError("timed out"), ours)
    assert peer_is_gone(TimeoutError(errno.ETIMEDOUT, "of the kernel"), None)
    assert not peer_is_gone(TimeoutError("of a queue"), None)


@pytest.mark.parametrize("error", [ValueError(), OSError(errno.ENOENT, ""), KeyError()])
def test_all_other_errors_are_the_handlers(error: Exception, pair: Any) -> None:
    ours, peers = pair
    peers.close()
    assert not peer_is_gone(error, ours)


def test_without_poll_the_exception_decides(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "poll")
    monkeypatch.setattr(tcpinfo, "_TCP_INFO", None)
    assert peer_is_gone(ConnectionResetError(), pair[0])


class Broken(socket.socket):
    """A socket of a program's own that fails when it is asked."""

    def fileno(self) -> int:
        raise KeyError("fileno")

    def gettimeout(self) -> float | None:
        raise KeyError("gettimeout")


@pytest.mark.parametrize("error", [ConnectionResetError(), TimeoutError()])
def test_a_socket_that_cannot_be_asked(error: OSError) -> None:
    with Broken() as request:
        assert not peer_is_gone(error, request)
        request.detach()
