"""``sockets.inheriting``: a listening socket that another process opened."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from everserve.sockets.inheriting import inherit


@pytest.fixture
def given() -> Iterator[socket.socket]:
    with socket.socket() as given:
        given.bind(("127.0.0.1", 0))
        yield given


def listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


@pytest.mark.parametrize("listening", [True, False])
def test_a_bound_socket_listens_afterwards(given: socket.socket, listening: bool) -> None:
    if listening:
        given.listen(1)
    with inherit(os.dup(given.fileno())) as sock:
        assert listens(sock)
        assert (sock.family, sock.type) == (given.family, given.type)
        assert sock.getsockname() == given.getsockname()
        assert not sock.get_inheritable()


def test_a_datagram_socket_needs_no_listening() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as given:
        given.bind(("::1", 0))
        with inherit(os.dup(given.fileno())) as sock:
            assert (sock.family, sock.type) == (socket.AF_INET6, socket.SOCK_DGRAM)


def test_a_connection_is_refused_and_left_open() -> None:
    ours, peers = socket.socketpair()
    with ours, peers:
        with pytest.raises(OSError, match="not a listening socket") as raised:
            inherit(ours.fileno())
        assert raised.value.filename == f"fd://{ours.fileno()}"
        peers.sendall(b"x")
        assert ours.recv(1) == b"x"


def test_a_descriptor_that_is_not_a_socket(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        with pytest.raises(OSError) as raised:
            inherit(file.fileno())
        assert raised.value.errno == errno.ENOTSOCK
        assert raised.value.filename == f"fd://{file.fileno()}"


def test_a_closed_descriptor() -> None:
    descriptor = os.dup(0)
    os.close(descriptor)
    with pytest.raises(OSError) as raised:
        inherit(descriptor)
    assert (raised.value.errno, raised.value.filename) == (errno.EBADF, f"fd://{descriptor}")
