"""How long a peer can make one fiber hold the loop, counted in operations, by each engine."""

from __future__ import annotations

import socket
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from tests.clients import LIMIT, Background

from everserve.fibers.scheduler import QUANTUM, SLICE
from everserve.server.acceptor import BATCH
from everserve.streams.reader import _READS_A_CHECKPOINT, Reader

MANY = 60_000
MOST = QUANTUM * _READS_A_CHECKPOINT
"""Pieces of what was received that a fiber takes before it gives way, however fast it is."""


def longest_hold(parts: Any, work: Callable[[Callable[[], None]], None]) -> int:
    """The most calls of `count` that `work(count)` makes before another fiber runs."""
    hub = parts.Hub()
    done, turns = [0], [0]

    def count() -> None:
        done[0] += 1

    def watch() -> None:
        while not worker.dead:
            turns.append(done[0])
            hub.yield_turn()

    worker = hub.spawn(work, count)
    watcher = hub.spawn(watch)
    assert hub.await_end(watcher, LIMIT)
    hub.close()
    turns.append(done[0])
    return max(later - sooner for sooner, later in pairwise(turns))


def fed(parts: Any, data: bytes) -> tuple[Any, Background]:
    """A fiber's socket whose peer sends `data` and closes."""
    ours, theirs = socket.socketpair()

    def feed() -> None:
        with theirs:
            theirs.sendall(data)

    return parts.FiberSocket.adopt(ours), Background(feed)


@pytest.mark.parametrize("by", ["line", "byte", "recv"])
def test_much_in_small_pieces(parts: Any, by: str) -> None:
    sock, feeding = fed(parts, b"\n" * MANY)

    def read(count: Callable[[], None]) -> None:
        reader = reader_class(parts)(sock)
        take = {
            "line": reader.readline,
            "byte": lambda: reader.read(1),
            "recv": lambda: sock.recv(1),
        }[by]
        while take():
            count()

    with sock:
        assert longest_hold(parts, read) <= (QUANTUM if by == "recv" else MOST)
        feeding.result()


def reader_class(parts: Any) -> Any:
    if parts.name == "python":
        return Reader
    from everserve.streams import _reader  # noqa: PLC0415 - not there where it was not built

    return _reader.Reader


def test_a_peer_that_reads_as_fast_as_we_send(parts: Any) -> None:
    """Each send that takes a part is an operation, also where the next one takes more at once."""
    ours, theirs = socket.socketpair()
    sock = parts.FiberSocket.adopt(ours)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    def drain() -> int:
        with theirs:
            total = 0
            while part := theirs.recv(65_536):
                total += len(part)
            return total

    draining = Background(drain)
    turns = []

    def send() -> None:
        with sock:
            sock.sendall(bytes(1 << 20))

    hub = parts.Hub()
    worker = hub.spawn(send)

    def watch() -> None:
        while not worker.dead:
            turns.append(1)
            hub.yield_turn()

    watcher = hub.spawn(watch)
    assert hub.await_end(watcher, LIMIT)
    hub.close()
    assert draining.result() == 1 << 20
    assert len(turns) > 1


def test_the_bounds() -> None:
    """By time a fiber gives way after 1 ms; a batch of connections is small."""
    assert SLICE == 0.001
    assert BATCH <= 100
