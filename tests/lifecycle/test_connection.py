"""``lifecycle.connection``: one connection in progress, and the view of all of them."""

from __future__ import annotations

import gc
import os
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from everserve.lifecycle.connection import Connection
from everserve.lifecycle.connections import ConnectionTable
from everserve.lifecycle.stages import Connections, ConnectionState
from everserve.sockets.tcpinfo import Traffic

pytestmark = pytest.mark.usefixtures("each_engine")

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, peers = socket.socketpair()
    with ours, peers:
        yield ours, peers


@pytest.fixture
def ours(pair: Pair) -> socket.socket:
    return pair[0]


def connection_of(request: Any, peer: Any = "peer") -> Connection:
    connection = Connection(1, id(request), peer)
    connection.reference = lambda: request
    return connection


def test_age_and_since(ours: socket.socket) -> None:
    before = datetime.now(UTC)
    connection = ConnectionTable().add(ours, ("127.0.0.1", 80))
    assert connection.age >= 0
    assert (connection.since - before).total_seconds() > -1
    assert repr(connection).startswith("<Connection #1 ('127.0.0.1', 80) accepted 0.")


def test_cut_ends_both_directions(pair: Pair) -> None:
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


def test_cut_does_not_touch_a_tls_session(
    pair: Pair,
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with context.wrap_socket(pair[0], server_side=True, do_handshake_on_connect=False) as secure:
        connection = ConnectionTable().add(secure, "peer")
        connection.cut()
        assert secure._sslobj is not None  # type: ignore[attr-defined]
        assert pair[1].recv(1) == b""


def test_the_view(pair: Pair) -> None:
    table = ConnectionTable()
    view = table.view
    first, second = (table.add(sock, sock.fileno()) for sock in pair)
    assert len(view) == 2
    assert first in view
    assert Connection(1, None, None) not in view
    for connection in view:  # live, and safe while it changes
        table.remove(connection)
    assert (len(view), list(view)) == (0, [])
    assert second not in view
    assert repr(view) == "<Connections []>"


def test_cut_reaches_a_connection_that_a_process_holds(pair: Pair) -> None:
    ours, peers = pair
    connection = connection_of(ours)
    connection.duplicate = ours.dup()
    ours.close()
    connection.cut()
    assert peers.recv(1) == b""
    connection.close()
    assert connection.duplicate.fileno() == -1
    assert (connection.state, connection.request) == (ConnectionState.CLOSED, None)


def test_cut_of_an_object_that_is_not_a_socket() -> None:
    connection_of("request").cut()


def test_its_traffic_is_that_of_its_counter(ours: socket.socket) -> None:
    class Counter:
        def traffic(self) -> Traffic:
            return Traffic(1.0, 2, 3, True)

    connection = connection_of(ours)
    assert connection.traffic() is None  # a Unix socket: the kernel does not count
    connection.counter = Counter()
    assert connection.traffic() == (1.0, 2, 3, True)
    assert connection_of("request").traffic() is None


def test_rare_fields_are_not_set_before_use() -> None:
    connection = Connection(1, 0, None)
    assert vars(connection) == {}
    found = (connection.held_by, connection.duplicate, connection.deadlines, connection.tls)
    assert found == (None, None, None, None)
    assert connection.request is None


def test_it_keeps_no_request_alive(pair: Pair) -> None:
    died: list[Any] = []
    sock = socket.socket(fileno=pair[0].detach())
    connection = ConnectionTable().add(sock, "peer", SimpleNamespace(ended=died.append))
    assert connection.request is sock
    sock.close()
    del sock
    gc.collect()
    assert connection.request is None
    assert died == [connection]


def test_what_cannot_be_referred_to_weakly_is_kept() -> None:
    request = (b"data", None)
    assert (
        ConnectionTable().add(request, "peer", SimpleNamespace(ended=pytest.fail)).request
        is request
    )


def test_a_view_of_nothing() -> None:
    view = Connections({})
    assert (len(view), list(view), object() in view) == (0, [], False)


@pytest.fixture
def accepted() -> Iterator[Pair]:
    """An accepted connection, and its client."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours, client:
        yield ours, client


def test_a_wrapper_that_has_the_descriptor_is_cut(accepted: Pair) -> None:
    """As ``SSLContext.wrap_socket`` in a handler's ``setup`` detaches it from the request."""
    ours, client = accepted
    connection = ConnectionTable().add(ours, ours.getpeername())
    with socket.socket(fileno=ours.detach()) as wrapper:
        assert connection.traffic() is not None
        assert connection.cut()
        assert wrapper.recv(1) == b""
        assert client.recv(1) == b""


def test_behind_a_proxy_the_wrapper_is_known_by_the_address_of_the_proxy(accepted: Pair) -> None:
    ours, client = accepted
    connection = ConnectionTable().add(ours, ours.getpeername())
    connection.origin, connection.peer = connection.peer, ("192.0.2.7", 4711)
    with socket.socket(fileno=ours.detach()):
        assert connection.cut()
        assert client.recv(1) == b""


def test_a_wrapper_over_a_unix_socket(tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        client.connect(path)
        ours, peer = listener.accept()
        connection = ConnectionTable().add(ours, peer)
        with socket.socket(fileno=ours.detach()):
            assert connection.cut()
            assert client.recv(1) == b""


def test_what_has_got_its_descriptor_meanwhile_is_left_alone(accepted: Pair) -> None:
    ours, _ = accepted
    connection = ConnectionTable().add(ours, ours.getpeername())
    number = ours.fileno()
    one, other = socket.socketpair()
    with one, other:
        ours.close()
        os.dup2(one.fileno(), number)
        try:
            assert not connection.cut()
            assert connection.traffic() is None
            one.sendall(b"still there")
            assert other.recv(100) == b"still there"
        finally:
            os.close(number)
    assert not connection.cut()


def test_a_datagram_cannot_be_cut(ours: socket.socket) -> None:
    told: list[bool] = []
    assert not connection_of((b"data", ours)).cut(told.append)
    assert told == [False]
