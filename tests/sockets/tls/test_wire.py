"""``sockets.tls.wire``: ciphertext between a socket and the records, here without TLS."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from tests.clients import LIMIT, Background, read_all
from tests.sockets.tls.peers import fill

from everserve.sockets.tls.wire import ANSWERS, Wire

MUCH = bytes(range(256)) * 40_000
"""More than the kernel takes, of a peer that does not read."""


class Output:
    """The part of `Records` that a wire needs: output that a test puts there."""

    def __init__(self) -> None:
        self.waiting = b""

    @property
    def has_output(self) -> bool:
        return bool(self.waiting)

    @property
    def output_size(self) -> int:
        return len(self.waiting)

    def take_output(self) -> bytes:
        taken, self.waiting = self.waiting, b""
        return taken


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.settimeout(LIMIT)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def output() -> Any:
    return Output()


@pytest.fixture
def wire(ends: tuple[socket.socket, socket.socket], output: Any) -> Wire:
    return Wire(ends[0], output)


@pytest.fixture
def peer(ends: tuple[socket.socket, socket.socket]) -> socket.socket:
    return ends[1]


# --- in ----------------------------------------------------------------------------------------


def test_what_was_read_before_is_received_first(
    ends: tuple[socket.socket, socket.socket], output: Any
) -> None:
    ours, theirs = ends
    wire = Wire(ours, output, initial=b"first")
    theirs.sendall(b"second")
    assert wire.receive() == b"first"
    assert wire.receive() == b"second"


def test_the_end_of_the_connection(wire: Wire, peer: socket.socket) -> None:
    peer.sendall(b"x")
    peer.close()
    assert wire.receive() == b"x"
    assert not wire.truncated
    assert wire.receive() == b""
    assert wire.truncated


def test_a_non_blocking_socket_without_data(wire: Wire) -> None:
    wire.inner.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):
        wire.receive()
    assert not wire.truncated


def test_a_limit_bounds_the_wait_for_data(wire: Wire, peer: socket.socket) -> None:
    with pytest.raises(TimeoutError):
        wire.receive(0.0)  # of the monotonic clock: long ago
    peer.sendall(b"x")
    assert wire.receive(monotonic() + LIMIT) == b"x"
    wire.restore(LIMIT)
    assert wire.inner.gettimeout() == LIMIT
    wire.inner.close()
    wire.restore(LIMIT)  # which changes nothing


# --- out ---------------------------------------------------------------------------------------


def test_all_is_sent_in_order(wire: Wire, peer: socket.socket, output: Output) -> None:
    reading = Background(read_all, peer)
    wire.send(b"one,")
    wire.send(MUCH)
    output.waiting = b"two,"
    wire.flush()
    wire.unsent = b"three,"
    output.waiting = b"four"
    wire.flush()
    assert wire.unsent == output.waiting == b""
    wire.flush()
    wire.inner.close()
    assert reading.result() == b"one," + MUCH + b"two,three,four"


def test_what_a_time_limit_stops_goes_before_other_data(
    wire: Wire, peer: socket.socket, output: Output
) -> None:
    wire.inner.settimeout(0.01)
    with pytest.raises(TimeoutError):
        wire.send(MUCH)
    assert 0 < len(wire.unsent) < len(MUCH)
    reading = Background(read_all, peer)
    wire.inner.settimeout(LIMIT)
    output.waiting = b"the end"
    wire.flush()
    wire.inner.close()
    assert reading.result() == MUCH + b"the end"


def test_a_non_blocking_socket_without_room(wire: Wire) -> None:
    fill(wire.inner)
    with pytest.raises(ssl.SSLWantWriteError):
        wire.send(b"x")
    with pytest.raises(ssl.SSLWantWriteError):
        wire.flush()
    assert wire.unsent == b"x"


def test_a_limit_bounds_the_wait_for_room(wire: Wire, output: Output) -> None:
    output.waiting = b"x"
    with pytest.raises(TimeoutError):
        wire.flush(0.0)
    assert wire.unsent == b"x"


def test_flush_now_does_not_wait(wire: Wire, output: Output) -> None:
    fill(wire.inner)
    wire.inner.settimeout(None)
    output.waiting = b"x"
    with pytest.raises(ssl.SSLWantWriteError):
        wire.flush_now()
    wire.try_flush()
    assert wire.unsent == b"x"
    assert wire.inner.gettimeout() is None


def test_try_flush_raises_nothing(wire: Wire, output: Output) -> None:
    output.waiting = b"x"
    wire.inner.close()
    wire.try_flush()
    assert wire.unsent == b"x"


@pytest.mark.parametrize("last", [True, False])
def test_flush_now_sends_all_there_is_room_for(
    wire: Wire, peer: socket.socket, output: Output, last: bool
) -> None:
    output.waiting = b"close_notify"
    wire.flush_now(last=last)
    wire.inner.shutdown(socket.SHUT_WR)
    assert read_all(peer) == b"close_notify"


def test_a_reader_leaves_the_output_to_a_writer(wire: Wire, peer: socket.socket) -> None:
    output: Any = wire.records
    output.waiting = b"alert"
    with wire.lock:
        wire.flush_if_unlocked()
        assert output.waiting
    wire.flush_if_unlocked()
    assert peer.recv(100) == b"alert"
    assert wire.lock.acquire(False), "it was not released"


def test_a_lock_of_the_callers(ends: tuple[socket.socket, socket.socket], output: Any) -> None:
    lock: Any = threading.RLock()
    assert Wire(ends[0], output, lock).lock is lock


def test_a_reader_does_not_wait_to_answer(wire: Wire, output: Any) -> None:
    fill(wire.inner)
    wire.inner.settimeout(LIMIT)
    output.waiting = bytes(ANSWERS)
    wire.answer()
    assert len(wire.unsent) == ANSWERS


def test_a_reader_waits_where_many_answers_wait(
    wire: Wire, output: Any, peer: socket.socket
) -> None:
    """A peer that asks, and does not read, is not read from either."""
    fill(wire.inner)
    wire.inner.settimeout(0.0)
    output.waiting = bytes(ANSWERS + 1)
    with pytest.raises(ssl.SSLWantWriteError):
        wire.answer()
    wire.inner.settimeout(LIMIT)
    output.waiting = bytes(ANSWERS + 1)
    reading = Background(read_all, peer)
    wire.answer()
    assert not wire.unsent
    wire.inner.close()
    reading.result()
