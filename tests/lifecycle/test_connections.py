"""``server.inflight``: the connections in progress, from accept until they are closed."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from everserve.lifecycle.connection import Connection, ConnectionState
from everserve.lifecycle.connections import ConnectionTable
from everserve.sockets.datagrams import Datagram


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, peers = socket.socketpair()
    with ours, peers:
        yield ours, peers


@pytest.fixture
def ours(pair: tuple[socket.socket, socket.socket]) -> socket.socket:
    return pair[0]


def test_a_connection_comes_and_goes(ours: socket.socket) -> None:
    inflight = ConnectionTable()
    connection = inflight.add(ours, "peer")
    assert (connection.id, connection.peer, connection.request) == (1, "peer", ours)
    assert connection.state is ConnectionState.ACCEPTED
    assert inflight.find(ours) is connection
    assert (len(inflight), inflight.accepted) == (1, 1)
    assert inflight.remove(connection) is True
    assert connection.state is ConnectionState.CLOSED
    assert connection.request is None
    assert (len(inflight), inflight.accepted) == (0, 1)


def test_only_one_removes_it(ours: socket.socket) -> None:
    inflight = ConnectionTable()
    connection = inflight.add(ours, "peer")
    assert [inflight.remove(connection) for _ in range(3)] == [True, False, False]
    assert inflight.remove(None) is False


def test_requests_that_are_no_sockets() -> None:
    inflight = ConnectionTable()
    requests = [Datagram((b"data", None)), Datagram((b"data", None)), object()]
    connections = [inflight.add(request, None) for request in requests]
    assert [connection.id for connection in connections] == [1, 2, 3]
    assert [inflight.find(request) for request in requests] == connections
    assert inflight.find(Datagram((b"data", None))) is None
    assert inflight.unfile(requests[0]) is connections[0]
    connections[0].cut()
    inflight.forget_closed()
    assert len(inflight) == 3


def test_a_socket_that_was_wrapped_is_found_by_its_descriptor(ours: socket.socket) -> None:
    inflight = ConnectionTable()
    connection = inflight.add(ours, "peer")
    with socket.socket(fileno=ours.detach()) as wrapped:
        assert inflight.find(wrapped) is connection
        inflight.forget_closed()
        assert inflight.find(wrapped) is connection
        assert inflight.unfile(wrapped) is connection
        assert inflight.find(wrapped) is None


def test_a_descriptor_that_comes_again_ends_its_old_connection(ours: socket.socket) -> None:
    inflight = ConnectionTable()
    old = inflight.add(ours, "old")
    with socket.socket(fileno=ours.detach()) as again:
        new = inflight.add(again, "new")
        assert list(inflight.view) == [new]
        assert old.state is ConnectionState.CLOSED
        assert inflight.remove(old) is False
        assert inflight.find(again) is new


def test_unfile_leaves_a_successor_under_the_same_descriptor_alone(ours: socket.socket) -> None:
    inflight = ConnectionTable()
    first = inflight.add(ours, "first")
    inflight._by_descriptor[ours.fileno()] = second = Connection(2, ours, "second")
    assert inflight.unfile(ours) is first
    assert inflight._by_descriptor[ours.fileno()] is second


def test_those_closed_behind_our_back_are_forgotten(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    inflight = ConnectionTable()
    closed = inflight.add(pair[0], "closed")
    opened = inflight.add(pair[1], "open")
    pair[0].close()
    inflight.forget_closed()
    assert list(inflight.view) == [opened]
    assert closed.state is ConnectionState.CLOSED


def test_one_that_a_process_holds_stays_until_it_has_ended(ours: socket.socket) -> None:
    inflight = ConnectionTable()
    connection = inflight.add(ours, "peer")
    inflight.hold(ours, 4711)
    ours.close()
    inflight.forget_closed()
    assert inflight.remove(connection) is False
    assert connection.state is ConnectionState.HANDLING
    assert inflight.release(4712) is None
    assert inflight.release(4711) is connection
    assert inflight.remove(connection) is True
    assert inflight.release(4711) is None


def test_holding_what_is_not_there(ours: socket.socket) -> None:
    ConnectionTable().hold(ours, 4711)


def test_the_view(pair: tuple[socket.socket, socket.socket]) -> None:
    inflight = ConnectionTable()
    view = inflight.view
    first, second = (inflight.add(sock, sock.fileno()) for sock in pair)
    assert len(view) == 2
    assert first in view
    assert Connection(1, None, None) not in view
    for connection in view:  # live, and safe while it changes
        inflight.remove(connection)
    assert (len(view), list(view)) == (0, [])
    assert second not in view
    assert repr(view) == "<Connections []>"


def test_age_and_since(ours: socket.socket) -> None:
    before = datetime.now(UTC)
    connection = ConnectionTable().add(ours, ("127.0.0.1", 80))
    assert connection.age >= 0
    assert (connection.since - before).total_seconds() > -1
    assert repr(connection).startswith("<Connection #1 ('127.0.0.1', 80) accepted 0.")


def test_cut_ends_both_directions(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, peers = pair
    connection = ConnectionTable().add(ours, "peer")
    connection.cut()
    assert ours.recv(1) == b""
    assert peers.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        ours.send(b"x")
    peers.close()
    connection.cut()
    ours.close()
    connection.cut()


def test_cut_leaves_a_tls_session_to_its_thread(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with context.wrap_socket(pair[0], server_side=True, do_handshake_on_connect=False) as secure:
        connection = ConnectionTable().add(secure, "peer")
        connection.cut()
        assert secure._sslobj is not None  # type: ignore[attr-defined]
        assert pair[1].recv(1) == b""


def test_the_descriptor_of_a_closed_one_may_be_somebody_elses(ours: socket.socket) -> None:
    inflight = ConnectionTable()
    inflight.add(ours, "peer")
    number = ours.fileno()
    ours.close()
    reader, writer = os.pipe()
    try:
        assert number in (reader, writer)
        inflight.forget_closed()  # might be a wrapper's: the next accept under this number tells
        assert len(inflight) == 1
    finally:
        os.close(reader)
        os.close(writer)


# -- one object for several requests -------------------------------------------------------------


class Runner:
    """Says who runs: whom the test wants."""

    now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def runner() -> Runner:
    return Runner()


@pytest.fixture
def shared(runner: Runner) -> ConnectionTable:
    return ConnectionTable(runner=runner)


def test_the_same_object_again(shared: ConnectionTable, runner: Runner) -> None:
    peers = [("one", 1), ("two", 2), ("three", 3)]
    first, second, third = (shared.add("request", peer) for peer in peers)
    assert len(shared) == 3
    for number, connection in ((2, second), (3, third), (1, first)):  # begun in another order
        runner.now = number
        assert shared.begin("request", connection.peer) is connection
    for number, connection in ((1, first), (3, third), (2, second)):
        runner.now = number
        assert shared.find("request") is connection
        assert shared.unfile("request") is connection
        assert shared.remove(connection) is True
        assert shared.remove(connection) is False
    assert (len(shared), shared._shared) == (0, {})
    assert shared.find("request") is None


def test_the_same_object_and_address_again(shared: ConnectionTable, runner: Runner) -> None:
    added = [shared.add("request", None) for _ in range(3)]
    begun = []
    for runner.now in (1, 2, 3):
        begun.append(shared.begin("request", None))
    assert begun == added


def test_one_that_came_back_while_the_second_is_in_progress(
    shared: ConnectionTable, runner: Runner
) -> None:
    first = shared.add("request", "a")
    second = shared.add("request", "b")
    runner.now = 1
    shared.begin("request", "a")
    shared.remove(first)
    third = shared.add("request", "c")
    runner.now = 2
    assert shared.begin("request", "c") is third
    runner.now = 3
    assert shared.begin("request", "b") is second
    assert len(shared) == 2


def test_the_same_object_after_its_end(shared: ConnectionTable) -> None:
    for number in range(1, 4):
        connection = shared.add("request", "peer")
        assert connection.id == number
        assert shared.find("request") is connection
        shared.remove(connection)
    assert (len(shared), shared._shared) == (0, {})


def test_one_whose_hooks_do_not_tell_its_end(runner: Runner) -> None:
    lost: list[Connection] = []

    def lose(connection: Connection) -> None:
        lost.append(connection)
        inflight.remove(connection)

    inflight = ConnectionTable(lose, runner)
    for _ in range(3):
        connection = inflight.add("request", "peer")
        assert inflight.begin("request", "peer") is connection
        connection.done = True
    assert [connection.id for connection in lost] == [1, 2]
    assert len(inflight) == 1


def test_requests_that_nobody_begins_are_not_kept_for_ever(
    shared: ConnectionTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everserve.server.inflight._UNBEGUN", 3)
    for _ in range(10):
        shared.add("request", "peer")
    assert [connection.id for connection in shared.view] == [7, 8, 9, 10]


def test_one_of_several_that_is_removed_meanwhile_is_found_no_more(shared: ConnectionTable) -> None:
    first, second = shared.add("request", "a"), shared.add("request", "b")
    shared._by_request.pop(first.place)
    first.state = ConnectionState.CLOSED
    assert shared.begin("request", "a") is second


def test_a_socket_that_is_the_same(ours: socket.socket, shared: ConnectionTable, runner: Runner) -> None:
    first, second = shared.add(ours, "a"), shared.add(ours, "b")
    runner.now = 1
    assert shared.begin(ours, "b") is second
    shared.remove(second)
    runner.now = 2
    assert shared.begin(ours, "a") is first
    assert shared.unfile(ours) is first
    shared.remove(first)
    assert (len(shared), shared._by_descriptor) == (0, {})


def test_processes_that_have_the_same(shared: ConnectionTable) -> None:
    for process in (11, 12):
        shared.add("request", process)
        shared.hold("request", process)
    for process in (12, 11):
        connection = shared.release(process)
        assert connection is not None
        assert connection.peer == process
        assert shared.remove(connection)


def test_a_descriptor_that_comes_again_tells_the_end_of_the_old_one() -> None:
    lost: list[Any] = []
    inflight = ConnectionTable(lost.append)
    first, peer = socket.socketpair()
    old = inflight.add(first, "old")
    descriptor = first.detach()
    again = socket.socket(fileno=descriptor)
    with again, peer:
        inflight.add(again, "new")
    assert lost == [old]
