"""``server.inflight``: the connections in progress, from accept until they are closed."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from everserve.server.inflight import Connection, ConnectionState, Inflight
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
    inflight = Inflight()
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
    inflight = Inflight()
    connection = inflight.add(ours, "peer")
    assert [inflight.remove(connection) for _ in range(3)] == [True, False, False]
    assert inflight.remove(None) is False


def test_requests_that_are_no_sockets() -> None:
    inflight = Inflight()
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
    inflight = Inflight()
    connection = inflight.add(ours, "peer")
    with socket.socket(fileno=ours.detach()) as wrapped:
        assert inflight.find(wrapped) is connection
        inflight.forget_closed()
        assert inflight.find(wrapped) is connection
        assert inflight.unfile(wrapped) is connection
        assert inflight.find(wrapped) is None


def test_a_descriptor_that_comes_again_ends_its_old_connection(ours: socket.socket) -> None:
    inflight = Inflight()
    old = inflight.add(ours, "old")
    with socket.socket(fileno=ours.detach()) as again:
        new = inflight.add(again, "new")
        assert list(inflight.view) == [new]
        assert old.state is ConnectionState.CLOSED
        assert inflight.remove(old) is False
        assert inflight.find(again) is new


def test_unfile_leaves_a_successor_under_the_same_descriptor_alone(ours: socket.socket) -> None:
    inflight = Inflight()
    first = inflight.add(ours, "first")
    inflight._by_descriptor[ours.fileno()] = second = Connection(2, ours, "second")
    assert inflight.unfile(ours) is first
    assert inflight._by_descriptor[ours.fileno()] is second


def test_those_closed_behind_our_back_are_forgotten(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    inflight = Inflight()
    closed = inflight.add(pair[0], "closed")
    opened = inflight.add(pair[1], "open")
    pair[0].close()
    inflight.forget_closed()
    assert list(inflight.view) == [opened]
    assert closed.state is ConnectionState.CLOSED


def test_one_that_a_process_holds_stays_until_it_has_ended(ours: socket.socket) -> None:
    inflight = Inflight()
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
    Inflight().hold(ours, 4711)


def test_the_view(pair: tuple[socket.socket, socket.socket]) -> None:
    inflight = Inflight()
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
    connection = Inflight().add(ours, ("127.0.0.1", 80))
    assert connection.age >= 0
    assert (connection.since - before).total_seconds() > -1
    assert repr(connection).startswith("<Connection #1 ('127.0.0.1', 80) accepted 0.")


def test_cut_ends_both_directions(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, peers = pair
    connection = Inflight().add(ours, "peer")
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
        connection = Inflight().add(secure, "peer")
        connection.cut()
        assert secure._sslobj is not None  # type: ignore[attr-defined]
        assert pair[1].recv(1) == b""


def test_the_descriptor_of_a_closed_one_may_be_somebody_elses(ours: socket.socket) -> None:
    inflight = Inflight()
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
