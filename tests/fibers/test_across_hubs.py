"""Fibers of two hubs, and threads, on one connection, queue, event or semaphore: safe and ordered.

Each hub is turned by a thread of its own. A greenlet never runs on another hub's thread.
"""

from __future__ import annotations

import importlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.clients import Background

from everserve.fibers.sync import Event, Queue, Semaphore

SIZE = 1 << 20


class TurnedHub:
    """A hub that a thread of its own turns until the end of the test."""

    def __init__(self, parts: Any) -> None:
        self.errors: list[BaseException] = []
        self.hub = parts.Hub(on_error=lambda _fiber, error: self.errors.append(error))
        self._over = False
        self._thread = Background(self._turn)

    def _turn(self) -> None:
        while not self._over:
            self.hub.turn()
        self.hub.close()

    def end(self) -> None:
        self._over = True
        self.hub.wake()
        self._thread.result()
        assert not self.errors


@pytest.fixture
def hubs(parts: Any) -> Iterator[tuple[Any, Any]]:
    turned = TurnedHub(parts), TurnedHub(parts)
    yield turned[0].hub, turned[1].hub
    for hub in turned:
        hub.end()


@pytest.fixture(params=["hub", "thread"])
def elsewhere(request: pytest.FixtureRequest, hubs: tuple[Any, Any]) -> Callable[..., Any]:
    """Start a function in a fiber of the second hub, or in a thread; `.join()` it."""
    return hubs[1].spawn if request.param == "hub" else Background


def parked(fiber: Any, hub: Any) -> None:
    """Wait until the fiber waits, and the hub too."""
    while not (fiber.parked and hub.idle):
        assert not fiber.dead, "the fiber has not waited"
        threading.Event().wait(0.0)


def keep_little(ours: Any, peer: Any) -> None:
    """Have the kernel keep less for a peer that does not read than a test writes.

    Else it makes these buffers larger while they fill: they may take 4 MiB and more.
    """
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SIZE // 16)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SIZE // 16)


def test_a_fiber_is_woken_by_an_event(hubs: tuple[Any, Any], elsewhere: Callable[..., Any]) -> None:
    event = Event()
    waiting = hubs[0].spawn(event.wait)
    parked(waiting, hubs[0])
    elsewhere(event.set)
    assert waiting.join(10)


def test_items_of_a_queue_keep_their_order(
    hubs: tuple[Any, Any], elsewhere: Callable[..., Any]
) -> None:
    queue: Queue[int] = Queue(3)
    got: list[int] = []
    reading = hubs[0].spawn(lambda: [got.append(queue.get()) for _item in range(1000)])
    elsewhere(lambda: [queue.put(number) for number in range(1000)])
    assert reading.join(20)
    assert got == list(range(1000))


def test_a_semaphore_is_passed_on(
    parts: Any, hubs: tuple[Any, Any], elsewhere: Callable[..., Any]
) -> None:
    for kind in (Semaphore, parts.Semaphore):
        semaphore, inside, most = kind(1), [], []

        def enter(semaphore: Any = semaphore, inside: Any = inside, most: Any = most) -> None:
            for _time in range(300):
                with semaphore:
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()

        first, other = hubs[0].spawn(enter), elsewhere(enter)
        assert first.join(20)
        other.join(20)
        assert max(most) == 1
        assert len(most) == 600


def test_two_hubs_read_from_one_connection(hubs: tuple[Any, Any], pair: Any) -> None:
    ours, peer = pair
    got: list[bytes] = []
    fibers = []
    for hub in (*hubs, *hubs):
        fibers.append(hub.spawn(lambda: got.append(ours.recv(1))))
        parked(fibers[-1], hub)
    for _fiber in fibers:
        peer.sendall(b"x")
    for fiber in fibers:
        assert fiber.join(10)
    assert got == [b"x"] * 4


def test_writes_of_two_hubs_to_a_peer_that_is_slow(hubs: tuple[Any, Any], pair: Any) -> None:
    ours, peer = pair
    keep_little(ours, peer)
    fibers = [hub.spawn(ours.sendall, bytes([n]) * SIZE * 4) for n, hub in enumerate(hubs)]
    for fiber, hub in zip(fibers, hubs, strict=True):
        parked(fiber, hub)
    received = [0, 0]
    while sum(received) < 8 * SIZE:
        data = peer.recv(1 << 16)
        received = [received[n] + data.count(bytes([n])) for n in (0, 1)]
    assert received == [4 * SIZE, 4 * SIZE]
    for fiber in fibers:
        assert fiber.join(10)


def test_lines_to_one_stream_are_whole_and_in_order(
    parts: Any, hubs: tuple[Any, Any], elsewhere: Callable[..., Any], pair: Any
) -> None:
    ours, peer = pair
    home = "everserve.streams." + ("_stream" if parts.name == "native" else "stream")
    reader, writer = importlib.import_module(home).open_stream(ours, coalesce=True)

    def write(name: bytes) -> None:
        for number in range(2000):
            writer.write(name + b" %d " % number + b"x" * 500 + b"\n")
        writer.flush()

    first, other = hubs[0].spawn(write, b"a"), elsewhere(write, b"b")
    with peer.makefile("rb") as file:
        lines = [file.readline().split() for _line in range(4000)]
    assert first.join(10)
    other.join(10)
    assert {line[2] for line in lines} == {b"x" * 500}
    for name in (b"a", b"b"):
        assert [int(line[1]) for line in lines if line[0] == name] == list(range(2000))
    writer.close()
    reader.close()


def test_a_close_from_elsewhere_wakes_both_hubs(
    hubs: tuple[Any, Any], elsewhere: Callable[..., Any], pair: Any
) -> None:
    ours, _peer = pair
    found: list[int | None] = []

    def read() -> None:
        try:
            ours.recv(1)
        except OSError as error:
            found.append(error.errno)

    fibers = [hub.spawn(read) for hub in hubs]
    for fiber, hub in zip(fibers, hubs, strict=True):
        parked(fiber, hub)
    elsewhere(ours.close)
    for fiber in fibers:
        assert fiber.join(10)
    assert found == [9, 9]


def test_hubs_that_end_while_a_fiber_of_one_writes_to_the_other(parts: Any, pair: Any) -> None:
    ours, peer = pair
    keep_little(ours, peer)
    turned = TurnedHub(parts), TurnedHub(parts)
    reading = turned[0].hub.spawn(ours.recv, 1)
    writing = turned[1].hub.spawn(ours.sendall, bytes(4 * SIZE))
    parked(reading, turned[0].hub)
    parked(writing, turned[1].hub)
    for hub in turned:
        hub.end()
    assert reading.dead
    assert writing.dead
