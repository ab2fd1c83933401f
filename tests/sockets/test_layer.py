"""``sockets.layer``: a socket on top of another one. It passes on all but the transfer of bytes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from tests.clients import LIMIT

from everserve.sockets.layer import Layer


@pytest.fixture
def layer() -> Iterator[Layer]:
    """A layer on a connection over TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), LIMIT)
        inner, _address = listener.accept()
    with client, inner:
        yield Layer(inner)


def test_it_is_a_socket_of_the_inner_descriptor(layer: Layer) -> None:
    inner = layer.inner
    assert isinstance(layer, socket.socket)
    assert layer.fileno() == inner.fileno()
    assert (layer.family, layer.type, layer.proto) == (inner.family, inner.type, inner.proto)
    assert layer.getsockname() == inner.getsockname()
    assert layer.getpeername() == inner.getpeername()
    assert layer.get_inheritable() == inner.get_inheritable() is False
    layer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    assert inner.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
    assert layer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
    layer.set_inheritable(True)
    assert inner.get_inheritable()
    assert "Layer" in repr(layer)


def test_the_time_limit_is_that_of_the_inner_socket(layer: Layer) -> None:
    layer.settimeout(3.5)
    assert layer.inner.gettimeout() == layer.gettimeout() == layer.timeout == 3.5
    assert layer.getblocking()
    layer.setblocking(False)
    assert layer.inner.gettimeout() == 0.0
    assert not layer.getblocking()


def test_closing_it_closes_the_inner(layer: Layer) -> None:
    layer.close()
    assert layer.fileno() == layer.inner.fileno() == -1
    layer.close()


def test_detaching_it_detaches_the_inner(layer: Layer) -> None:
    fd = layer.detach()
    assert layer.fileno() == layer.inner.fileno() == -1
    with socket.socket(fileno=fd) as again:
        assert again.getsockname()


def test_calls_that_would_bypass_it_are_refused(layer: Layer) -> None:
    for call in (
        lambda: layer.sendto(b"x", ("127.0.0.1", 1)),
        lambda: layer.recvfrom(1),
        lambda: layer.recvfrom_into(bytearray(1)),
    ):
        with pytest.raises(ValueError, match="not allowed on instances of"):
            call()
    for call in (
        lambda: layer.recvmsg(1),
        lambda: layer.recvmsg_into([bytearray(1)]),
        lambda: layer.sendmsg([b"x"]),
        lambda: layer.sendmsg_afalg([b"x"], op=1),
        layer.dup,
    ):
        with pytest.raises(NotImplementedError):
            call()


def test_calls_without_meaning_on_a_connection_are_refused_by_the_kernel(layer: Layer) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        layer.bind(("127.0.0.1", 0))
    with pytest.raises(OSError, match="Invalid argument"):
        layer.listen()
    with pytest.raises(OSError, match="Invalid argument"):
        layer.accept()
    with pytest.raises(OSError, match="already connected"):
        layer.connect(layer.getpeername())
    assert layer.connect_ex(layer.getpeername()) != 0
