"""``sockets.listening``: the family from the address, the options, the file of a Unix socket."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from everserve.addresses import Address
from everserve.handlers.base import BaseRequestHandler
from everserve.server.tcp import TCPServer
from everserve.sockets import listening
from everserve.sockets.listening import (
    SocketFile,
    bind_internet,
    family_for,
    has_ipv6,
    is_filesystem_path,
    naming,
)

INET, INET6 = socket.AF_INET, socket.AF_INET6


@pytest.mark.parametrize(
    ("address", "dual_stack", "family"),
    [
        (("::1", 80), False, INET6),
        (("::", 80, 0, 0), False, INET6),
        (("fe80::1%lo", 80), True, INET6),
        (("", 80), False, INET),
        (("", 80), True, INET6),
        (("127.0.0.1", 80), True, INET),
        (("localhost", 80), False, INET),
        (("localhost", 80), True, INET),
        ((b"::1", 80), False, INET),
        ((), False, INET),
        (None, False, INET),
        ("/a/path:with-a-colon", False, INET),
    ],
)
def test_the_family_follows_the_address(address: Any, dual_stack: bool, family: int) -> None:
    assert family_for(address, dual_stack=dual_stack) == family


def test_without_ipv6_every_interface_is_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_ipv6()

    def refuse(*_: Any) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", refuse)
        assert not has_ipv6()
        assert family_for(("", 80), dual_stack=True) == INET
    monkeypatch.setattr(socket, "has_ipv6", False)
    assert not has_ipv6()


OPTIONS = {"reuse_address": False, "reuse_port": False, "dual_stack": False}


@pytest.fixture(params=[INET, INET6], ids=["IPv4", "IPv6"])
def sock(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.socket(request.param) as sock:
        yield sock


def loopback(sock: socket.socket) -> tuple[str, int]:
    return ("::1" if sock.family == INET6 else "127.0.0.1", 0)


@pytest.mark.parametrize("on", [True, False])
def test_reuse_of_the_address(sock: socket.socket, on: bool) -> None:
    bind_internet(sock, loopback(sock), **{**OPTIONS, "reuse_address": on})
    assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)) is on


@pytest.mark.parametrize("on", [True, False])
def test_reuse_of_the_port(sock: socket.socket, on: bool) -> None:
    bind_internet(sock, loopback(sock), **{**OPTIONS, "reuse_port": on})
    assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)) is on


@pytest.mark.parametrize("on", [True, False])
def test_dual_stack_is_the_opposite_of_v6only(on: bool) -> None:
    with socket.socket(INET6) as sock:
        bind_internet(sock, ("::", 0), **{**OPTIONS, "dual_stack": on})
        assert bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)) is not on


@pytest.mark.parametrize("host", ["", "localhost", "127.0.0.1"])
def test_what_needs_no_resolver(host: str) -> None:
    with socket.socket(INET) as sock:
        bind_internet(sock, (host, 0), **OPTIONS)
        assert sock.getsockname()[0] == ("0.0.0.0" if host == "" else "127.0.0.1")


@pytest.mark.parametrize(
    ("family", "address", "bound"),
    [
        (INET, ("localhost", 80), ("127.0.0.1", 80)),
        (INET6, ("localhost", 80), ("::1", 80)),
        (INET6, ("localhost", 80, 0, 3), ("::1", 80, 0, 3)),
        (INET, ("", 80), ("", 80)),
        (INET, ("10.0.0.1", 80), ("10.0.0.1", 80)),
        (INET, None, None),
    ],
)
def test_localhost_becomes_a_number(family: int, address: Any, bound: Any) -> None:
    assert listening._without_resolver(family, address) == bound


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        first.listen()
        host, port = first.getsockname()
        with pytest.raises(OSError) as raised:
            bind_internet(second, (host, port), **OPTIONS)
    assert raised.value.errno == errno.EADDRINUSE
    assert raised.value.filename == f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (("::1", 80, 0, 0), "[::1]:80"),
        (("", 80), "*:80"),
        (("10.0.0.1", 80), "10.0.0.1:80"),
        ("/run/socket", "/run/socket"),
        (b"/run/socket", "/run/socket"),
        (None, "None"),
    ],
)
def test_an_error_names_its_address(address: Any, name: str) -> None:
    with pytest.raises(OSError) as raised, naming(address):
        raise PermissionError(errno.EACCES, "Permission denied")
    assert raised.value.filename == name


def test_an_error_keeps_the_name_it_has() -> None:
    with pytest.raises(OSError) as raised, naming("/run/socket"):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/other")
    assert raised.value.filename == "/other"
    with pytest.raises(OSError) as raised, naming("/run/socket"):
        raise OSError("of no system call")
    assert raised.value.filename is None


@pytest.mark.parametrize(
    ("address", "is_path"),
    [("/a", True), (b"a", True), ("\0a", False), (b"\0a", False), ("", False), ("\0", False)],
)
def test_which_unix_addresses_are_files(address: str | bytes, is_path: bool) -> None:
    assert is_filesystem_path(address) is is_path


# -- socket files ------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.fixture(params=[socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["stream", "datagram"])
def unix(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, request.param) as unix:
        yield unix


def listen(sock: socket.socket) -> None:
    if sock.type == socket.SOCK_STREAM:
        sock.listen()


def abandon(path: Path, kind: int) -> None:
    """Leave a socket file without a listener."""
    with socket.socket(socket.AF_UNIX, kind) as gone:
        gone.bind(str(path))


@pytest.mark.parametrize("as_type", [str, os.fsencode])
def test_bind_and_remove(unix: socket.socket, path: Path, as_type: Any) -> None:
    file = SocketFile.bind(unix, as_type(str(path)), mode=None)
    assert path.is_socket()
    file.remove()
    assert not path.exists()
    file.remove()


def test_a_relative_path_is_removed_from_anywhere(
    unix: socket.socket, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    file = SocketFile.bind(unix, path.name, mode=None)
    monkeypatch.chdir("/")
    file.remove()
    assert not path.exists()


def test_a_stale_file_is_replaced(unix: socket.socket, path: Path) -> None:
    abandon(path, unix.type)
    SocketFile.bind(unix, str(path), mode=None)
    listen(unix)
    with socket.socket(socket.AF_UNIX, unix.type) as client:
        client.connect(str(path))


def test_a_live_one_is_not(unix: socket.socket, path: Path) -> None:
    SocketFile.bind(unix, str(path), mode=None)
    listen(unix)
    with socket.socket(socket.AF_UNIX, unix.type) as other:
        with pytest.raises(OSError) as raised:
            SocketFile.bind(other, str(path), mode=None)
    assert (raised.value.errno, raised.value.filename) == (errno.EADDRINUSE, str(path))
    with socket.socket(socket.AF_UNIX, unix.type) as client:
        client.connect(str(path))


def test_a_live_one_whose_backlog_is_full_is_not(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as other:
        SocketFile.bind(busy, str(path), mode=None)
        busy.listen(0)
        clients = []
        try:
            while True:
                clients.append(socket.socket(socket.AF_UNIX))
                clients[-1].setblocking(False)
                clients[-1].connect(str(path))
        except BlockingIOError:
            pass
        with pytest.raises(OSError) as raised:
            SocketFile.bind(other, str(path), mode=None)
        for client in clients:
            client.close()
    assert raised.value.errno == errno.EADDRINUSE
    assert path.is_socket()


def test_one_of_the_other_kind_is_not(unix: socket.socket, path: Path) -> None:
    kinds = {socket.SOCK_STREAM, socket.SOCK_DGRAM} - {unix.type}
    with socket.socket(socket.AF_UNIX, kinds.pop()) as live:
        live.bind(str(path))
        listen(live)
        with pytest.raises(OSError):
            SocketFile.bind(unix, str(path), mode=None)
    assert path.is_socket()


def test_a_file_that_is_not_a_socket_is_not_replaced(unix: socket.socket, path: Path) -> None:
    path.write_text("data")
    with pytest.raises(OSError) as raised:
        SocketFile.bind(unix, str(path), mode=0o600)
    assert (raised.value.errno, raised.value.filename) == (errno.EADDRINUSE, str(path))
    assert path.read_text() == "data"


def test_no_such_directory_is_named(unix: socket.socket, path: Path) -> None:
    missing = str(path.parent / "missing" / "socket")
    with pytest.raises(FileNotFoundError) as raised:
        SocketFile.bind(unix, missing, mode=None)
    assert raised.value.filename == missing


def test_a_file_that_is_removed_between_bind_and_the_check(
    unix: socket.socket, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandon(path, unix.type)

    def gone(_: Any) -> Any:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(os, "lstat", gone)
    with pytest.raises(OSError) as raised:
        SocketFile.bind(unix, str(path), mode=None)
    assert raised.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_mode(unix: socket.socket, path: Path, mode: int) -> None:
    SocketFile.bind(unix, str(path), mode=mode)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_the_mode_is_never_wider_than_asked(
    unix: socket.socket, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "chmod", lambda *_: None)
    SocketFile.bind(unix, str(path), mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_the_mode_of_a_link_in_its_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("")
    other.chmod(0o600)

    class Raced(socket.socket):
        def bind(self, address: Any) -> None:
            super().bind(address)
            path.unlink()
            path.symlink_to(other)

    with Raced(socket.AF_UNIX) as raced, pytest.raises(FileExistsError) as raised:
        SocketFile.bind(raced, str(path), mode=0o666)
    assert raised.value.filename == str(path)
    assert stat.S_IMODE(other.stat().st_mode) == 0o600


def test_another_file_in_its_place_is_not_removed(unix: socket.socket, path: Path) -> None:
    file = SocketFile.bind(unix, str(path), mode=None)
    path.unlink()
    abandon(path, unix.type)
    file.remove()
    assert path.is_socket()


def test_its_own_file_is_removed_even_if_its_mode_was_changed(
    unix: socket.socket, path: Path
) -> None:
    file = SocketFile.bind(unix, str(path), mode=None)
    path.chmod(0o666)
    file.remove()
    assert not path.exists()


def test_after_the_socket_was_closed_only_an_unchanged_file_is_removed(path: Path) -> None:
    for touched in (False, True):
        with socket.socket(socket.AF_UNIX) as unix:
            file = SocketFile.bind(unix, str(path), mode=None)
        if touched:
            before = path.lstat().st_ctime_ns
            path.unlink()
            abandon(path, socket.SOCK_STREAM)  # may get the inode number of the first
            while path.lstat().st_ctime_ns == before:  # the clock of files ticks every few ms
                path.touch()
        file.remove()
        assert path.exists() is touched


def test_a_file_that_is_gone_already(unix: socket.socket, path: Path) -> None:
    file = SocketFile.bind(unix, str(path), mode=None)
    path.unlink()
    file.remove()


def test_a_directory_that_may_not_be_written(
    unix: socket.socket, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = SocketFile.bind(unix, str(path), mode=None)

    def refuse(_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "unlink", refuse)
    file.remove()


def test_another_process_does_not_remove_it(
    unix: socket.socket, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = SocketFile.bind(unix, str(path), mode=None)
    pid = os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: pid + 1)
        file.remove()
    assert path.is_socket()


@pytest.mark.parametrize("zone", ["lo", "1"])
def test_the_scope_of_an_address(zone: str) -> None:
    if socket.if_nametoindex("lo") != 1:
        pytest.skip("the loopback has another number")
    assert listening._with_scope((f"fe80::1%{zone}", 80)) == ("fe80::1", 80, 0, 1)
    assert listening._with_scope(("fe80::1", 80, 0, 3)) == ("fe80::1", 80, 0, 3)


def test_an_interface_that_there_is_not() -> None:
    with socket.socket(INET6) as sock, pytest.raises(OSError, match="'nope'") as raised:
        bind_internet(
            sock, ("fe80::1%nope", 80), reuse_address=False, reuse_port=False, dual_stack=None
        )
    assert raised.value.errno == errno.ENODEV
    assert raised.value.filename == "[fe80::1%nope]:80"


def link_local() -> tuple[str, str] | None:
    """An address of this machine that is valid on one interface alone, and that interface."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        digits, *_, name = line.split()
        if digits.startswith("fe80"):
            return str(ipaddress.IPv6Address(int(digits, 16))), name
    return None


def test_a_link_local_address_is_bound_with_its_scope() -> None:
    found = link_local()
    if found is None:
        pytest.skip("no link-local address on this machine")
    host, name = found
    with TCPServer((f"{host}%{name}", 0), BaseRequestHandler) as server:
        assert server.server_address[3] == socket.if_nametoindex(name)
        assert str(Address.of(server.socket)).startswith(f"tcp://[{host}%{name}]:")


@pytest.mark.parametrize("name", ["x" * 120, b"x" * 120])
def test_a_path_that_is_too_long(name: Any) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        with pytest.raises(OSError, match="at most 107 bytes, this has 120: choose") as raised:
            SocketFile.bind(sock, name, mode=None)
    assert (raised.value.errno, raised.value.filename) == (errno.ENAMETOOLONG, "x" * 120)


def test_a_file_that_is_no_socket(tmp_path: Path) -> None:
    for path in (tmp_path / "file", tmp_path):
        (tmp_path / "file").touch()
        with socket.socket(socket.AF_UNIX) as sock:
            with pytest.raises(OSError, match="a file that is no socket is there") as raised:
                SocketFile.bind(sock, str(path), mode=None)
        assert (raised.value.errno, raised.value.filename) == (errno.EADDRINUSE, str(path))
        assert path.exists()


def test_what_is_no_address() -> None:
    with socket.socket() as sock:
        with pytest.raises(TypeError, match="'nowhere' is no address to bind to: "):
            bind_internet(sock, "nowhere", reuse_address=False, reuse_port=False, dual_stack=None)
        with pytest.raises(TypeError, match="the address comes first, then the handler"):
            bind_internet(sock, dict, reuse_address=False, reuse_port=False, dual_stack=None)
