"""Issue 2, 2.9: the file of a Unix socket: stale, in use, the server's own, another one."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.clients import connect
from tests.defects.kinds import Echoes, Serve

KINDS = [("UnixStreamServer", socket.SOCK_STREAM), ("UnixDatagramServer", socket.SOCK_DGRAM)]


@pytest.mark.parametrize(("kind", "socket_type"), KINDS)
def test_a_stale_file_is_replaced(
    kind: str, socket_type: int, socketserver_module: ModuleType, Echo: type, tmp_path: Path
) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket_type) as gone:
        gone.bind(path)
    with getattr(socketserver_module, kind)(path, Echo) as server:
        assert server.server_address == path


@pytest.mark.parametrize(("kind", "socket_type"), KINDS)
def test_its_own_file_is_removed_at_close(
    kind: str, socket_type: int, socketserver_module: ModuleType, Echo: type, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    with getattr(socketserver_module, kind)(str(path), Echo):
        assert path.is_socket()
    assert not path.exists()


def test_its_own_file_is_removed_after_a_change_of_its_mode(
    socketserver_module: ModuleType, Echo: type, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    with socketserver_module.UnixStreamServer(str(path), Echo):
        path.chmod(0o666)
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_the_mode_is_an_attribute(
    mode: int, socketserver_module: ModuleType, Echo: type, tmp_path: Path
) -> None:
    class Server(socketserver_module.UnixStreamServer):
        socket_mode = mode

    path = tmp_path / "socket"
    with Server(str(path), Echo):
        assert path.stat().st_mode & 0o777 == mode


def test_a_live_server_keeps_its_file(
    socketserver_module: ModuleType, Echo: type, serve: Serve, echoes: Echoes, tmp_path: Path
) -> None:
    path = str(tmp_path / "socket")
    server = socketserver_module.UnixStreamServer(path, Echo)
    serve(server)
    with pytest.raises(OSError) as raised:
        socketserver_module.UnixStreamServer(path, Echo)
    assert raised.value.errno == errno.EADDRINUSE
    assert raised.value.filename == path
    assert echoes(path)


@pytest.mark.documented
def test_another_file_in_its_place_is_not_removed(
    socketserver_module: ModuleType, Echo: type, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    with socketserver_module.UnixStreamServer(str(path), Echo):
        path.unlink()
        path.write_text("not a socket")
        with pytest.raises(OSError):
            socketserver_module.UnixStreamServer(str(path), Echo)
    assert path.read_text() == "not a socket"


@pytest.mark.documented
@pytest.mark.skipif(not os.path.exists("/proc/net/unix"), reason="Linux has abstract names")
@pytest.mark.parametrize("as_type", [str, bytes])
def test_an_abstract_name(
    as_type: Any, socketserver_module: ModuleType, Echo: type, serve: Serve
) -> None:
    name = f"\0everserve-test-{os.getpid()}-{as_type.__name__}"
    server = socketserver_module.UnixStreamServer(name if as_type is str else name.encode(), Echo)
    serve(server)
    with connect(name) as client:
        client.sendall(b"ping")
        assert client.recv(100) == b"ping"
