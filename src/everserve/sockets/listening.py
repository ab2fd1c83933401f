"""Make and bind the sockets that a server listens on.

``server.tcp`` and ``server.unix`` call it from ``server_bind``.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SocketFile", "bind_internet", "family_for", "is_filesystem_path", "naming"]


def family_for(address: Any, *, dual_stack: bool) -> int:
    """The address family for ``(host, port)``, without a call to a resolver.

    IPv6 for a host with a colon, and for all interfaces (``""``) if ``dual_stack`` is set and the
    system has IPv6. IPv4 for everything else, names included, as in the standard library.
    """
    host = address[0] if isinstance(address, tuple) and address else None
    if isinstance(host, str) and ":" in host:
        return socket.AF_INET6
    if host == "" and dual_stack and has_ipv6():
        return socket.AF_INET6
    return socket.AF_INET


def has_ipv6() -> bool:
    """True if the system can make an IPv6 socket now (support in the build is not enough)."""
    if not socket.has_ipv6:
        return False
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def bind_internet(
    sock: socket.socket,
    address: Any,
    *,
    reuse_address: bool,
    reuse_port: bool,
    dual_stack: bool | None,
) -> None:
    """Set the options of a listener and bind it. Numbers, ``""`` and ``localhost`` need no resolver.

    Raises ``OSError`` (the subclass for the system's ``errno``), with the address in ``filename``.
    """
    internet = sock.family in (socket.AF_INET, socket.AF_INET6)
    if reuse_address:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Linux 6.12.9 refuses SO_REUSEPORT on other families than the internet's.
    if reuse_port and internet and hasattr(socket, "SO_REUSEPORT"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if sock.family == socket.AF_INET6 and dual_stack is not None:
        # The default depends on the system (net.ipv6.bindv6only): set it.
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
    with naming(address):
        sock.bind(_without_resolver(sock.family, address))


def _without_resolver(family: int, address: Any) -> Any:
    if isinstance(address, tuple) and address and address[0] == "localhost":  # RFC 6761, 6.3
        loopback = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        return (loopback, *address[1:])
    return address


@contextmanager
def naming(address: Any) -> Iterator[None]:
    """Add the address to an ``OSError`` of the block."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = _readable(address)
        raise


def _readable(address: Any) -> str:
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host or '*'}:{port}"
    return os.fsdecode(address) if isinstance(address, bytes) else str(address)


def is_filesystem_path(address: str | bytes) -> bool:
    """True for the path of a socket file, false for an abstract name and for ``""`` (autobind)."""
    return bool(os.fsencode(address).strip(b"\0")) and not os.fsencode(address).startswith(b"\0")


class SocketFile:
    """The file of a bound Unix socket. It replaces a stale file, and removes only the file it made.

    ``bind`` makes the file. ``remove`` may be called several times, and does nothing in a forked child.
    """

    def __init__(self, sock: socket.socket, path: str | bytes) -> None:
        self._socket = sock
        self._path = os.path.abspath(path)
        self._identity = self._identify()
        self._owner = os.getpid()

    @classmethod
    def bind(cls, sock: socket.socket, path: str | bytes, *, mode: int | None) -> SocketFile:
        """Bind ``sock`` to ``path``, with the permission bits ``mode`` (``None``: from the umask).

        A socket file without a listener is replaced. Raises ``OSError`` with the path in ``filename``:
        ``EADDRINUSE`` if another socket listens there, or if the file is not a socket; ``EEXIST`` if
        another file has taken the place of the socket before its mode was set.
        """
        with naming(path):
            if mode is not None:
                # Before bind, so that the file is never open wider than asked (unix(7), Linux).
                with suppress(OSError):
                    os.fchmod(sock.fileno(), mode)
            _bind_over_stale(sock, path)
            if mode is not None:
                _set_mode(path, mode)
        return cls(sock, path)

    def remove(self) -> None:
        """Remove the file if it still is the one that this process bound."""
        if os.getpid() == self._owner and self._is_still_own():
            with suppress(OSError):
                os.unlink(self._path)
        self._identity = None

    def _is_still_own(self) -> bool:
        bound, found = self._identity, self._identify()
        if bound is None or found is None:
            return False
        if self._socket.fileno() != -1:  # it holds the inode: no other file can have the number
            return bound[:2] == found[:2]
        return bound == found

    def _identify(self) -> tuple[int, int, int] | None:
        try:
            status = os.lstat(self._path)
        except OSError:
            return None
        # Once the socket is closed, another file in its place may get the same inode number.
        return status.st_dev, status.st_ino, status.st_ctime_ns


def _set_mode(path: str | bytes, mode: int) -> None:
    """Set the mode of the socket file itself: in a folder of others a link may have its place now."""
    if not hasattr(os, "O_PATH"):
        os.chmod(path, mode, follow_symlinks=False)
        return
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor).st_mode
        if not stat.S_ISSOCK(found):
            raise FileExistsError(errno.EEXIST, "another file has taken the place of the socket")
        if stat.S_IMODE(found) != mode:  # open(2), O_PATH: fchmod(2) refuses such a descriptor
            os.chmod(f"/proc/self/fd/{descriptor}", mode)
    finally:
        os.close(descriptor)


def _bind_over_stale(sock: socket.socket, path: str | bytes) -> None:
    try:
        sock.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not _is_stale(path, sock.type):
            raise
        os.unlink(path)
        sock.bind(path)


def _is_stale(path: str | bytes, kind: int) -> bool:
    """True if ``path`` is a socket that refuses connections: the process that bound it is gone."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        return probe.connect_ex(os.fsdecode(path)) == errno.ECONNREFUSED
