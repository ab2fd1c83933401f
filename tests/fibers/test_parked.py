"""Sockets that are parked without a fiber, on each engine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests.engines import ENGINES, in_place


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    return in_place(request.param, monkeypatch)


@pytest.fixture
def hub(engine: Any) -> Iterator[Any]:
    hub = engine.Hub()
    yield hub
    hub.close()


@pytest.fixture(params=["tcp", "unix"])
def pair(engine: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "unix":
        left, right = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            left = socket.create_connection(listener.getsockname())
            right = listener.accept()[0]
    right.settimeout(20)
    adopted = engine.FiberSocket.adopt(left)
    yield adopted, right
    adopted.close()
    right.close()


def run(hub: Any, *functions: Any) -> None:
    fibers = [hub.spawn(function) for function in functions]
    while not all(fiber.dead for fiber in fibers):
        hub.turn(20)


def test_a_parked_socket_gets_a_fiber_when_something_comes(hub: Any, pair: Any) -> None:
    sock, peer = pair
    found: list[bytes] = []

    def resume() -> None:
        while data := sock._receive_now(100):
            found.append(data)
        if data is None:
            assert sock._park(resume)

    run(hub, resume)
    assert hub.fibers == 0
    for number in range(3):
        peer.send(b"%d" % number)
        while len(found) == number:
            hub.turn(20)
    assert found == [b"0", b"1", b"2"]
    assert hub.fibers == 0


def test_one_that_waits_does_not_hold_up_the_others(engine: Any, hub: Any) -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    sockets = [engine.FiberSocket.adopt(left) for left, _ in pairs]
    done: list[int] = []

    def begin(number: int) -> None:
        assert sockets[number]._receive_now(100) is None
        assert sockets[number]._park(lambda: resume(number))

    def resume(number: int) -> None:
        sockets[number].recv(100)
        if number == 0:
            sockets[0].recv(100)  # waits
        done.append(number)

    run(hub, *(lambda number=number: begin(number) for number in range(3)))
    for _, peer in pairs:
        peer.send(b"x")
    while len(done) < 2:
        hub.turn(20)
    assert sorted(done) == [1, 2]
    pairs[0][1].send(b"y")
    while len(done) < 3:
        hub.turn(20)
    for sock in (*sockets, *(peer for _, peer in pairs)):
        sock.close()


def test_a_parked_socket_that_is_closed_is_resumed(hub: Any, pair: Any) -> None:
    sock, _ = pair
    resumed: list[int] = []

    def begin() -> None:
        assert sock._receive_now(100) is None
        assert sock._park(lambda: resumed.append(sock.fileno()))

    run(hub, begin)
    sock.close()
    while not resumed:
        hub.turn(20)
    assert resumed == [-1]


def test_a_parked_socket_is_resumed_on_demand(hub: Any, pair: Any) -> None:
    sock, _ = pair
    resumed: list[bytes | None] = []

    def begin() -> None:
        sock._receive_now(100)
        sock._park(lambda: resumed.append(sock._receive_now(100)))

    run(hub, begin)
    hub.call_from_thread(sock._resume_parked)
    while not resumed:
        hub.turn(20)
    assert resumed == [None]


def test_nothing_is_parked_where_something_may_be_there(hub: Any, pair: Any) -> None:
    sock, _ = pair
    parked: list[bool] = []
    run(hub, lambda: parked.append(sock._park(lambda: None)))
    assert parked == [False]
