"""``lifecycle.connections``: the connections in progress, from accept until they are closed."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from everserve.lifecycle.connection import Connection
from everserve.lifecycle.connections import ConnectionTable
from everserve.lifecycle.stages import ConnectionState
from everserve.sockets.datagrams import Datagram
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


def test_a_connection_is_added_and_removed(ours: socket.socket) -> None:
    table = ConnectionTable()
    connection = table.add(ours, "peer")
    assert (connection.id, connection.peer, connection.request) == (1, "peer", ours)
    assert connection.state is ConnectionState.ACCEPTED
    assert table.find(ours) is connection
    assert (len(table), table.accepted) == (1, 1)
    assert table.remove(connection) is True
    assert connection.state is ConnectionState.CLOSED
    assert connection.request is None
    assert (len(table), table.accepted) == (0, 1)


def test_only_one_removes_it(ours: socket.socket) -> None:
    table = ConnectionTable()
    connection = table.add(ours, "peer")
    assert [table.remove(connection) for _ in range(3)] == [True, False, False]
    assert table.remove(None) is False


def test_requests_that_are_not_sockets() -> None:
    table = ConnectionTable()
    requests = [Datagram((b"data", None)), Datagram((b"data", None)), object()]
    connections = [table.add(request, None) for request in requests]
    assert [connection.id for connection in connections] == [1, 2, 3]
    assert [table.find(request) for request in requests] == connections
    assert table.find(Datagram((b"data", None))) is None
    assert table.unfile(requests[0]) is connections[0]
    connections[0].cut()
    table.forget_closed()
    assert len(table) == 3


def test_a_socket_that_was_wrapped_is_found_by_its_descriptor(ours: socket.socket) -> None:
    table = ConnectionTable()
    connection = table.add(ours, "peer")
    with socket.socket(fileno=ours.detach()) as wrapped:
        assert table.find(wrapped) is connection
        table.forget_closed()
        assert table.find(wrapped) is connection
        assert table.unfile(wrapped) is connection
        assert table.find(wrapped) is None


def test_a_reused_descriptor_ends_its_old_connection(ours: socket.socket) -> None:
    table = ConnectionTable()
    old = table.add(ours, "old")
    with socket.socket(fileno=ours.detach()) as again:
        new = table.add(again, "new")
        assert list(table.view) == [new]
        assert old.state is ConnectionState.CLOSED
        assert table.remove(old) is False
        assert table.find(again) is new


def test_unfile_keeps_a_successor_with_the_same_descriptor(ours: socket.socket) -> None:
    table = ConnectionTable()
    first = table.add(ours, "first")
    table._by_descriptor[ours.fileno()] = second = Connection(2, ours, "second")
    assert table.unfile(ours) is first
    assert table._by_descriptor[ours.fileno()] is second


def test_connections_closed_without_the_hooks_are_dropped(
    pair: Pair,
) -> None:
    table = ConnectionTable()
    closed = table.add(pair[0], "closed")
    opened = table.add(pair[1], "open")
    pair[0].close()
    table.forget_closed()
    assert list(table.view) == [opened]
    assert closed.state is ConnectionState.CLOSED


def test_a_connection_that_a_process_holds_stays_until_that_ends(ours: socket.socket) -> None:
    table = ConnectionTable()
    connection = table.add(ours, "peer")
    table.hold(ours, 4711)
    ours.close()
    table.forget_closed()
    assert table.remove(connection) is False
    assert connection.state is ConnectionState.HANDLING
    assert table.release(4712) is None
    assert table.release(4711) is connection
    assert table.remove(connection) is True
    assert table.release(4711) is None


def test_holding_an_unknown_connection(ours: socket.socket) -> None:
    ConnectionTable().hold(ours, 4711)


def test_the_descriptor_of_a_closed_connection_may_be_reused(ours: socket.socket) -> None:
    table = ConnectionTable()
    table.add(ours, "peer")
    number = ours.fileno()
    ours.close()
    reader, writer = os.pipe()
    try:
        assert number in (reader, writer)
        table.forget_closed()  # it may be a wrapper's: the next accept with this number decides
        assert len(table) == 1
    finally:
        os.close(reader)
        os.close(writer)


# -- a repeated request --------------------------------------------------------------------------


def test_a_request_that_is_in_progress_already_has_no_entry() -> None:
    table = ConnectionTable()
    first = table.add("request", "a")
    assert table.add("request", "b") is None
    assert (len(table), table.accepted) == (1, 2)
    assert table.find("request") is first
    assert table.remove(first) is True
    assert table.find("request") is None
    again = table.add("request", "c")
    assert (again.id, table.find("request")) == (2, again)


def test_a_reused_descriptor_reports_the_end_of_the_old_connection() -> None:
    lost: list[Any] = []
    table = ConnectionTable()
    first, peer = socket.socketpair()
    old = table.add(first, "old", SimpleNamespace(ended=lost.append))
    again = socket.socket(fileno=first.detach())
    with again, peer:
        table.add(again, "new", SimpleNamespace(ended=lost.append))
    assert lost == [old]


# -- no request is kept alive --------------------------------------------------------------------


def test_a_connection_whose_request_was_freed_is_dropped(pair: Pair) -> None:
    lost: list[Any] = []
    table = ConnectionTable()
    sock = socket.socket(fileno=pair[0].detach())
    connection = table.add(sock, "peer", SimpleNamespace(ended=lost.append))
    sock.close()
    del sock
    assert lost == [connection]
    assert connection.request is None


def test_a_connection_detached_for_a_wrapper_stays(pair: Pair) -> None:
    table = ConnectionTable()
    sock = socket.socket(fileno=pair[0].detach())
    connection = table.add(sock, "peer", SimpleNamespace(ended=pytest.fail))
    wrapper = socket.socket(fileno=sock.detach())
    with wrapper:
        del sock
        assert list(table.view) == [connection]
        assert connection.request is None
        assert table.find(wrapper) is connection
        other = Datagram((b"", wrapper))  # it may have the id of the first
        assert table.add(other, "other") is not None
        assert len(table) == 2
        assert table.remove(table.unfile(wrapper)) is True


def test_a_connection_whose_socket_is_replaced(pair: Pair) -> None:
    ours, peers = pair
    table = ConnectionTable()
    connection = table.add(ours, "peer")
    table.replace(connection, peers, table)
    assert connection.request is peers
    assert table.find(peers) is connection
    assert table.remove(connection) is True
    table.replace(connection, ours, table)  # it has ended, and is not added again
    assert len(table) == 0


# -- to make room --------------------------------------------------------------------------------


class Counted:
    """A counter of traffic that has been quiet for so long."""

    def __init__(self, quiet: float) -> None:
        self.quiet = quiet

    def traffic(self) -> Traffic:
        return Traffic(self.quiet, 0, 0, False)


def fill(table: ConnectionTable, *quiet: float) -> list[Connection]:
    added = []
    for seconds in quiet:
        connection = table.add(Datagram((b"", None)), None)
        connection.counter = Counted(seconds)
        added.append(connection)
    return added


def test_the_longest_idle_connection_is_shed() -> None:
    table = ConnectionTable()
    short, longest, new, middle = fill(table, 1.0, 9.0, 99.0, 5.0)
    assert table.shed(but=new.request) is longest
    assert longest.missed == "shed-idle"
    assert table.shed(but=new.request) is middle
    assert table.shed(but=new.request) is short


def test_of_equally_idle_connections_the_oldest_is_shed() -> None:
    table = ConnectionTable()
    first, *_ = fill(table, 1.0, 1.0, 1.0)
    assert table.shed(but=None) is first


def test_with_unknown_traffic_none_is_shed() -> None:
    table = ConnectionTable()
    table.add(Datagram((b"", None)), None)
    assert table.shed(but=None) is None


def test_cut_connections_that_do_not_end_make_no_room() -> None:
    table = ConnectionTable()
    connections = fill(table, *range(6))
    shed = [table.shed(but=None) for _ in range(6)]
    assert shed == [*reversed(connections[2:]), None, None]
    table.remove(shed[0])
    table.remove(shed[1])
    assert table.shed(but=None) is connections[1]


def test_only_the_oldest_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[ConnectionTable.__module__], "LOOKED_AT", 2)
    table = ConnectionTable()
    _, second, _ = fill(table, 1.0, 2.0, 3.0)
    assert table.longest_idle(table.view, but=None) is second
