"""``sockets.standin``: a listener that a child gives up, and the object that stays."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from everserve.sockets.standin import give_up


class Own(socket.socket):
    """A program's own class of sockets."""

    note = "mine"


@pytest.mark.parametrize("kind", [socket.socket, Own])
def test_the_object_stays_and_accepts_nothing(kind: Any) -> None:
    with kind() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        name, descriptor = sock.getsockname(), sock.fileno()
        give_up(sock)
        assert (sock.getsockname(), sock.fileno()) == (name, descriptor)
        assert isinstance(sock, kind)
        assert not sock.get_inheritable()
        with pytest.raises(OSError):
            sock.accept()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(name).close()


def test_a_listener_of_tls() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with socket.create_server(("127.0.0.1", 0)) as plain:
        name = plain.getsockname()
        with context.wrap_socket(plain, server_side=True) as sock:
            give_up(sock)
            assert sock.getsockname() == name


def test_a_unix_listener(tmp_path: Path) -> None:
    path = str(tmp_path / "server")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()
        give_up(sock)
        assert sock.getsockname() == path


def test_without_a_descriptor_left_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(*_: Any, **__: Any) -> None:
        raise OSError(24, "Too many open files")

    with socket.create_server(("127.0.0.1", 0)) as sock:
        with monkeypatch.context() as patch:
            patch.setattr(os, "dup2", no_more)
            give_up(sock)
        assert sock.fileno() == -1
