"""``server.listener``: the mode, the batches and the end of a listening socket."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from everserve.server.listener import (
    DatagramListener,
    Listener,
    StreamListener,
    leave_all_to_parent,
    listener_of,
    remember,
)
from everserve.server.tcp import TCPServer
from everserve.sockets.inheriting import inherit

linux = pytest.mark.skipif(sys.platform != "linux", reason="the mode of an accepted socket")


class Getter:
    def get_request(self) -> Any:
        """A listener that overrides the default."""


DEFAULT = TCPServer.get_request.__get__(object())
OVERRIDDEN = Getter().get_request


@pytest.fixture
def stream() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def datagram() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        yield sock


def test_the_kind_of_a_servers_socket(stream: socket.socket, datagram: socket.socket) -> None:
    assert type(listener_of(SimpleNamespace(socket=stream))) is StreamListener
    assert type(listener_of(SimpleNamespace(socket=datagram))) is DatagramListener
    for other in (SimpleNamespace(), SimpleNamespace(socket=None), SimpleNamespace(socket="mock")):
        assert type(listener_of(other)) is Listener


def test_an_object_that_is_not_a_socket_has_no_abilities() -> None:
    listener = Listener()
    with listener.serving():
        assert listener.timeout() is None
        assert not listener.accepts_connections
        assert not listener.accepts_streams
        assert not listener.takes_batches(DEFAULT)
    listener.close()


@linux
def test_a_stream_does_not_block_while_it_serves(stream: socket.socket) -> None:
    listener = StreamListener(stream)
    assert listener.accepts_connections
    with listener.serving():
        assert listener.timeout() == 0.0
    assert listener.timeout() is None


@linux
def test_the_mode_is_set_again_before_each_accept(stream: socket.socket) -> None:
    listener = StreamListener(stream)
    with listener.serving():
        os.set_blocking(stream.fileno(), True)  # as another process may, which shares it
        listener.prepare()
        assert not os.get_blocking(stream.fileno())
    assert os.get_blocking(stream.fileno())
    stream.close()
    listener.prepare()


@linux
def test_a_listener_that_came_non_blocking_is_left_so(stream: socket.socket) -> None:
    stream.setblocking(False)
    with inherit(os.dup(stream.fileno())) as sock:
        assert sock.gettimeout() is None
        with StreamListener(sock).serving():
            assert sock.gettimeout() == 0.0
        assert sock.gettimeout() is None
        assert not os.get_blocking(sock.fileno())


def test_a_timeout_set_by_the_program_stays(stream: socket.socket) -> None:
    stream.settimeout(5.0)
    with StreamListener(stream).serving():
        assert stream.gettimeout() == 5.0
    assert stream.gettimeout() == 5.0


@linux
def test_closing_while_it_serves_does_no_harm(stream: socket.socket) -> None:
    listener = StreamListener(stream)
    with listener.serving():
        listener.close()
    assert stream.fileno() == -1


@linux
def test_connections_are_accepted_in_batches_unless_get_request_is_overridden(
    stream: socket.socket,
) -> None:
    listener = StreamListener(stream)
    assert not listener.takes_batches(DEFAULT)  # it may block
    with listener.serving():
        assert listener.takes_batches(DEFAULT)
        assert not listener.takes_batches(OVERRIDDEN)
    assert listener.accepts_streams


@linux
def test_a_socket_of_another_class_is_accepted_from_by_its_own_method(
    stream: socket.socket,
) -> None:
    class Wrapped(socket.socket):
        pass

    with Wrapped(fileno=socket.dup(stream.fileno())) as wrapped:
        listener = listener_of(SimpleNamespace(socket=wrapped))
        assert type(listener) is StreamListener
        with listener.serving():
            assert not listener.takes_batches(DEFAULT)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="Unix sockets")
def test_packets_with_connections_are_accepted_one_by_one() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.setblocking(False)
        listener = StreamListener(sock)
        assert listener.takes_batches(DEFAULT)
        assert not listener.accepts_streams


def test_many_datagrams_are_received_at_a_time_and_never_by_accept(datagram: socket.socket) -> None:
    listener = DatagramListener(datagram)
    assert not listener.accepts_connections
    with listener.serving():
        assert listener.timeout() is None
        assert listener.takes_batches(DEFAULT)
        assert not listener.takes_batches(OVERRIDDEN)
        assert not listener.accepts_streams
    datagram.settimeout(1.0)
    assert not listener.takes_batches(DEFAULT)
    listener.close()
    assert datagram.fileno() == -1


def test_a_child_holds_no_listener_of_connections(
    stream: socket.socket, datagram: socket.socket
) -> None:
    class Server:
        def __init__(self, sock: Any) -> None:
            self.socket = sock
            remember(self)

    servers = [Server(stream), Server(datagram), Server("mock")]
    replies_through = os.fstat(datagram.fileno()).st_ino
    with socket.socket(fileno=os.dup(stream.fileno())) as parents:
        leave_all_to_parent()
        assert listens(parents)
        assert not listens(stream)
        assert stream.getsockname() == parents.getsockname()
    assert os.fstat(datagram.fileno()).st_ino == replies_through
    del servers


def listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
