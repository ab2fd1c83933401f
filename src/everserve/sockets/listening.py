"""Make and bind the sockets that a server listens on.

``server.tcp`` and ``server.unix`` call it from ``server_bind``.
"""

from __future__ import annotations

import atexit
import errno
import os
import socket
import stat
from contextlib import contextmanager, suppress
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "SocketFile",
    "bind_internet",
    "check_path",
    "family_for",
    "forks",
    "give_up_dead_peers",
    "index_of",
    "is_filesystem_path",
    "naming",
    "remove_left_files",
    "resolved",
    "set_options",
]


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
    set_options(sock, reuse_address=reuse_address, reuse_port=reuse_port)
    if sock.family == socket.AF_INET6 and dual_stack is not None:
        # The default depends on the system (net.ipv6.bindv6only): set it.
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
    with naming(address):
        sock.bind(_with_scope(_without_resolver(sock.family, address)))


def set_options(
    sock: socket.socket,
    *,
    reuse_address: bool = False,
    reuse_port: bool = False,
    no_delay: bool = False,
) -> None:
    """Set those options of a listener that are true. Accepted sockets inherit ``no_delay``."""
    internet = sock.family in (socket.AF_INET, socket.AF_INET6)
    if reuse_address:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Linux 6.12.9 refuses SO_REUSEPORT on other families than the internet's.
    if reuse_port and internet and hasattr(socket, "SO_REUSEPORT"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if no_delay and sock.family != socket.AF_UNIX and sock.type == socket.SOCK_STREAM:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


PROBES = 4
"""Questions that a peer leaves unanswered before it is given up."""


def give_up_dead_peers(
    sock: socket.socket, *, keep_alive: float | None, user_timeout: float | None
) -> None:
    """Have TCP find peers that are gone without a word (tcp(7)). Times are in seconds.

    ``keep_alive``: of silence, until the first question; then as long again for the answers.
    ``user_timeout``: that sent bytes may stay unacknowledged (RFC 5482).
    """
    if keep_alive is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, ceil(keep_alive))
            between = ceil(keep_alive / PROBES)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, between)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
    if user_timeout is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        milliseconds = ceil(user_timeout * 1000)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def _without_resolver(family: int, address: Any) -> Any:
    if isinstance(address, tuple) and address and address[0] == "localhost":  # RFC 6761, 6.3
        loopback = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        return (loopback, *address[1:])
    return address


def resolved(family: int, address: tuple[str, int]) -> Any:
    """The address as the system writes it. Raises ``OSError`` with the address in ``filename``."""
    with naming(address):
        host, port = _without_resolver(family, address)
        return socket.getaddrinfo(host, port, socket.AddressFamily(family), socket.SOCK_DGRAM)[0][4]


def _with_scope(address: Any) -> Any:
    """``("fe80::1%eth0", port)`` as bind(2) takes it; Python would bind to the scope 0."""
    if isinstance(address, tuple) and len(address) == 2 and "%" in str(address[0]):
        host, _, zone = address[0].partition("%")
        return host, address[1], 0, index_of(zone)
    return address


def index_of(interface: str) -> int:
    """The number of an interface, by its name, or the number itself as text. Raises ``OSError``."""
    if interface.isdecimal():
        return int(interface)
    try:
        return socket.if_nametoindex(interface)
    except OSError:  # it has no errno
        raise OSError(errno.ENODEV, f"no network interface is called {interface!r}") from None


@contextmanager
def naming(address: Any) -> Iterator[None]:
    """Add the address to an ``OSError`` of the block."""
    try:
        yield
    except TypeError as error:
        raise TypeError(f"{address!r} is no address to bind to: {error}{_hint(address)}") from None
    except OSError as error:
        if error.errno is None and "too long" in str(error):
            raise _too_long(address) from None
        if error.filename is None and error.errno is not None:
            error.filename = _readable(address)
        raise


def _hint(address: Any) -> str:
    return "; the address comes first, then the handler" if callable(address) else ""


_LONGEST_PATH = 107
"""Bytes of the path of a Unix socket: unix(7) has 108 with the NUL."""


def _too_long(path: Any) -> OSError:
    """The error for the path of a Unix socket that does not fit."""
    most, size = _LONGEST_PATH, len(os.fsencode(path))
    why = (
        f"the path of a Unix socket has at most {most} bytes, this has {size}: choose a shorter one"
    )
    return OSError(errno.ENAMETOOLONG, why, _readable(path))


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

    ``bind`` makes the file. ``remove`` may be called several times. Where the process has forked since,
    another process may serve on it: then it goes when a process ends, and no one listens any more.
    """

    _left: ClassVar[set[SocketFile]] = set()  # those to remove at the end of the process

    def __init__(self, sock: socket.socket, path: str | bytes) -> None:
        self._socket = sock
        self._kind = sock.type
        self._path = os.fsdecode(os.path.abspath(path))
        self._identity = self._identify()
        self._owner = os.getpid()
        self._forks = forks.count

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
        """Remove the file if it still is the one that this process bound, and no other may serve."""
        if self._forks != forks.count:
            self.leave()
            return
        if os.getpid() == self._owner and self._is_still_own():
            with suppress(OSError):
                os.unlink(self._path)
        self._identity = None

    def leave(self) -> None:
        """Remove the file at the end of the process: until then the program may do so itself."""
        if self._is_still_own():
            self._identity = self._identify()  # its mode may have been changed
            self._owner = os.getpid()
            self._left.add(self)

    def _remove_abandoned(self) -> None:
        if os.getpid() == self._owner and self._is_still_own() and not self._is_served():
            with suppress(OSError):
                os.unlink(self._path)

    def _is_served(self) -> bool:
        """True if a process has the socket. A connect of another type shows it, and reaches no one."""
        kind = socket.SOCK_STREAM if self._kind == socket.SOCK_DGRAM else socket.SOCK_DGRAM
        with socket.socket(socket.AF_UNIX, kind) as probe:
            return probe.connect_ex(self._path) != errno.ECONNREFUSED

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


@atexit.register
def remove_left_files() -> None:
    """Remove the files of closed servers that the program has left, at the end of the process."""
    while SocketFile._left:
        SocketFile._left.pop()._remove_abandoned()


class Forks:
    """Counts the forks of this process after which the child may serve on a listener."""

    def __init__(self) -> None:
        self.count = 0

    def _add(self) -> None:
        self.count += 1

    def forget_last(self) -> None:
        """The child of the last fork gives all listeners up."""
        self.count -= 1


forks = Forks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=forks._add)


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
        if error.errno != errno.EADDRINUSE:
            raise
        if not _is_socket(path):
            raise _no_socket(path) from None
        if not _is_stale(path, sock.type):
            raise
        os.unlink(path)
        sock.bind(path)


def _no_socket(path: str | bytes) -> OSError:
    why = "a file that is no socket is there: remove it, or choose another path"
    return OSError(errno.EADDRINUSE, why, _readable(path))


def check_path(path: str) -> None:
    """Raise the ``OSError`` that a bind to ``path`` would, but for a socket that is there already."""
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise _too_long(path)
    if not is_filesystem_path(path):
        return
    if os.path.lexists(path) and not _is_socket(path):
        raise _no_socket(path)
    folder = os.path.dirname(os.path.abspath(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        number = errno.EACCES if os.path.isdir(folder) else errno.ENOENT
        raise OSError(number, os.strerror(number), path)


def _is_socket(path: str | bytes) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False


def _is_stale(path: str | bytes, kind: int) -> bool:
    """True if the socket ``path`` refuses connections: the process that bound it is gone."""
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        return probe.connect_ex(os.fsdecode(path)) == errno.ECONNREFUSED
