"""Receive whole datagrams, detect truncated ones, and reply from the address that they were sent to.

``UDPServer.get_request`` calls ``receive``; the accept loop takes batches from the ``Exchange`` of a
``DatagramSocket``. What either returns is the handler's ``request``. This is the plain path, of one
system call for each datagram, and the reference of ``_datagrams.pyx``.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from everserve.sockets.genuine import RealSocket, is_socket

if TYPE_CHECKING:
    from everserve.wire.proxy import ProxyHeader

__all__ = [
    "BATCH",
    "LARGEST",
    "Datagram",
    "DatagramSocket",
    "Exchange",
    "OnError",
    "PeerAddress",
    "drops_of",
    "is_datagram",
    "receive",
    "report",
    "wildcard_of",
]

LARGEST = 65535
"""The length field of UDP has 16 bits (RFC 768): no datagram is longer, in bytes."""

BATCH = 64
"""Datagrams of one batch: as many as one message may be split into (UDP_SEGMENT, udp(7))."""

# As plain numbers: combining the flags of an enum takes a microsecond each.
_MSG_DONTWAIT = int(getattr(socket, "MSG_DONTWAIT", 0))
_MSG_TRUNC = int(getattr(socket, "MSG_TRUNC", 0))
_SCM_CREDENTIALS = getattr(socket, "SCM_CREDENTIALS", -1)
# A struct ucred: unix(7). The credentials come first, so descriptors that a peer passes find no room.
_OF_CREDENTIALS = socket.CMSG_SPACE(12) if hasattr(socket, "CMSG_SPACE") else 0
_IS_LINUX = sys.platform == "linux"
_SO_RXQ_OVFL, _SO_MEMINFO, _MEMINFO_DROPS = 40, 55, 8  # asm-generic/socket.h, linux/sock_diag.h
_IP_PKTINFO, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 8, 49, 50  # ip(7), ipv6(7)
_IPPROTO_IPV6 = int(getattr(socket, "IPPROTO_IPV6", 41))
_INFO = struct.Struct("=i4s4s")  # in_pktinfo: interface, local address, address of the header
_INFO6 = struct.Struct("=16sI")  # in6_pktinfo: address, interface
_DROPS = struct.Struct("=I")
_CONTROL = 128
_WILDCARDS = ("0.0.0.0", "::")

OnError = Callable[[Any, Any, BaseException], object]
StartThread = Callable[[Callable[[], object]], object]


class Datagram(tuple[bytes, socket.socket]):
    """The ``(data, socket)`` that a handler gets as its ``request``; ``truncated`` if its end was lost.

    If a proxy sent it, ``proxy`` is its header, and ``reply_to`` is the address of the proxy.
    ``credentials`` are those of the process that sent it over a Unix socket, a packed ``struct ucred``.
    """

    truncated: bool = False
    proxy: ProxyHeader | None = None
    reply_to: Any = None
    credentials: bytes | None = None


class PeerAddress(tuple[Any, ...]):
    """The address of a peer that has sent to ``local``, one of the addresses of a wildcard bind.

    A reply to it leaves from there.
    """

    local: tuple[Any, ...]


class DatagramSocket(RealSocket):
    """The socket of a datagram server: it knows which of its addresses a peer has sent to."""

    __slots__ = ("_exchange",)

    def __init__(self, *args: Any, **keywords: Any) -> None:
        self._exchange: Any = None
        super().__init__(*args, **keywords)

    def bind(self, address: Any, /) -> None:
        """Bind, and have the kernel say what was dropped, and on a wildcard bind who was meant."""
        _ask_for_local(self, True)  # first, so that no datagram comes without it
        super().bind(address)
        self.prepare()

    def prepare(self) -> None:
        """Have the kernel say so of a socket that is bound."""
        _ask_for_local(self, wildcard_of(self) is not None)
        if _IS_LINUX and self.family != socket.AF_UNIX:
            self.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)

    def exchange(self, start: StartThread) -> Exchange:
        """What receives for it in batches. ``start`` is for the compiled one."""
        if self._exchange is None:
            self._exchange = Exchange(self, start)
        exchange: Exchange = self._exchange
        return exchange

    def sendto(self, data: Any, flags: Any, address: Any = None) -> int:
        """As ``socket.sendto``; a reply to a ``PeerAddress`` leaves from its ``local``."""
        if address is None:
            flags, address = 0, flags
        if type(address) is PeerAddress:
            return self.sendmsg([data], [_local_info(address.local)], flags, address)
        return super().sendto(data, flags, address)

    def detach(self) -> int:
        """Give the descriptor away."""
        self._end()
        return super().detach()

    def _real_close(self, *args: Any) -> None:
        self._end()
        super()._real_close(*args)  # type: ignore[misc]  # as ``close`` calls it

    def _end(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.end()


class Exchange:
    """Receives the datagrams of one socket in batches. Here a reply leaves at once.

    ``drops`` counts the datagrams for which the kernel had no room in the socket's buffer; ``cut`` is
    true if the end of one of the last batch was lost.
    """

    def __init__(self, sock: socket.socket, start: StartThread) -> None:
        self._knows_local = wildcard_of(sock) is not None
        is_unix = sock.family == getattr(socket, "AF_UNIX", -1)
        self._room = (_OF_CREDENTIALS if is_unix else _CONTROL) if _IS_LINUX else 0
        self._last_drops = 0
        self.drops = 0
        self.cut = False

    def receive(self, sock: socket.socket, size: int, limit: int) -> list[tuple[Any, Any]]:
        """At most ``limit`` datagrams that wait, of at most ``size`` bytes: requests and addresses.

        Empty if none waits. Raises ``OSError``.
        """
        received: list[tuple[Any, Any]] = []
        self.cut = False
        try:
            while len(received) < min(limit, BATCH):
                received.append(self._receive_one(sock, size))
        except BlockingIOError:
            pass
        except OSError:
            if not received:
                raise
        return received

    def _receive_one(self, sock: socket.socket, size: int) -> tuple[Any, Any]:
        data, control, flags, address = sock.recvmsg(size, self._room, _MSG_DONTWAIT)
        request = Datagram((data, sock))
        if flags & _MSG_TRUNC:
            request.truncated = self.cut = True
        for level, kind, value in control:
            if (level, kind) == (socket.SOL_SOCKET, _SO_RXQ_OVFL):
                (drops,) = _DROPS.unpack(value)
                self.drops += (drops - self._last_drops) & 0xFFFF_FFFF
                self._last_drops = drops
            elif (level, kind) == (socket.SOL_SOCKET, _SCM_CREDENTIALS):
                request.credentials = value
            elif self._knows_local:
                address = _with_local(address, level, kind, value, sock)
        return request, address

    def wait(self, wakeup: int) -> bool:
        """Wait for a datagram; false where the accept loop is to do that, as here."""
        return False

    def hold(self, size: int) -> None:
        """The handlers of a batch of ``size`` begin."""

    def note(self, request: Any, address: Any) -> None:
        """The handler of that request begins."""

    def release(self) -> Sequence[tuple[OSError, Any, Any]]:
        """The handlers have ended. Returns what failed of their replies: (error, request, address)."""
        return ()

    def flush(self) -> None:
        """Send the replies that wait."""

    def end(self) -> None:
        """The socket closes."""


def is_datagram(request: Any) -> bool:
    """True if the request is a pair ``(data, socket)``."""
    return isinstance(request, tuple) and len(request) == 2


def report(on_error: OnError, request: Any, address: Any, error: OSError) -> None:
    """Report a reply that could not be sent, as if its handler had raised it."""
    try:
        raise error
    except OSError:
        on_error(request, address, error)


def receive(
    sock: socket.socket, size: int, *, wait: bool, credentials: bool = False
) -> tuple[Datagram, Any]:
    """Receive one datagram of at most ``size`` bytes: ``(Datagram, address)``.

    ``credentials``: take those of the sender too, if the kernel passes them. Raises
    ``BlockingIOError`` if there is none and ``wait`` is false, and ``OSError`` for other errors.
    """
    if not (wait or issubclass(type(sock), RealSocket)) and is_socket(sock):
        with _without_waiting(sock):
            return receive(sock, size, wait=True, credentials=credentials)
    flags = 0 if wait else _MSG_DONTWAIT
    control: list[tuple[int, int, bytes]] = []
    if hasattr(sock, "recvmsg"):
        room = _CONTROL if isinstance(sock, DatagramSocket) else 0
        if credentials:
            room = _OF_CREDENTIALS
        data, control, received, address = sock.recvmsg(size, room, flags)
        truncated = bool(received & _MSG_TRUNC)
        for level, kind, value in control:
            address = _with_local(address, level, kind, value, sock)
    else:  # Windows, or a user's object with the interface of a socket
        data, address = sock.recvfrom(size + 1)
        truncated = len(data) > size
    datagram = Datagram((data[:size], sock))
    if truncated:
        datagram.truncated = True
    for level, kind, value in control:
        if level == socket.SOL_SOCKET and kind == _SCM_CREDENTIALS:
            datagram.credentials = value
    return datagram, address


@contextmanager
def _without_waiting(sock: socket.socket) -> Iterator[None]:
    """Have a green socket not wait, whatever the flags of a call say: gevent waits all the same."""
    timeout = sock.gettimeout()
    sock.settimeout(0.0)
    try:
        yield
    finally:
        sock.settimeout(timeout)


# -- what the kernel says beside a datagram ----------------------------------------------------


def wildcard_of(sock: socket.socket) -> int | None:
    """The port, if the socket is bound to all addresses of its family; ``None`` for others."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    host, port = sock.getsockname()[:2]
    return int(port) if host in _WILDCARDS else None


def drops_of(sock: socket.socket) -> int | None:
    """The datagrams that the kernel has dropped, as the buffer was full; ``None`` if it cannot say."""
    try:
        packed = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 64) if _IS_LINUX else b""
    except OSError:
        return None
    start = _MEMINFO_DROPS * _DROPS.size
    if len(packed) < start + _DROPS.size:
        return None
    return int(_DROPS.unpack_from(packed, start)[0])


def _ask_for_local(sock: socket.socket, wanted: bool) -> None:
    if not _IS_LINUX:
        return
    with suppress(OSError):
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, wanted)
        elif sock.family == socket.AF_INET6:
            sock.setsockopt(_IPPROTO_IPV6, _IPV6_RECVPKTINFO, wanted)


def _with_local(address: Any, level: int, kind: int, value: bytes, sock: socket.socket) -> Any:
    """The address of a peer, with the local one if ``value`` is that."""
    local: tuple[Any, ...]
    if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
        _, host, _ = _INFO.unpack(value[: _INFO.size])
        if not any(host):
            return address
        local = (socket.inet_ntop(socket.AF_INET, host), sock.getsockname()[1])
    elif (level, kind) == (_IPPROTO_IPV6, _IPV6_PKTINFO):
        host, interface = _INFO6.unpack(value[: _INFO6.size])
        if host[0] == 0xFF:  # a group is no one's address
            return address
        link = interface if host[0] == 0xFE else 0  # of one link alone
        local = (socket.inet_ntop(socket.AF_INET6, host), sock.getsockname()[1], 0, link)
    else:
        return address
    found = PeerAddress(address)
    found.local = local
    return found


def _local_info(local: tuple[Any, ...]) -> tuple[int, int, bytes]:
    """The control message that has a datagram leave from the address ``local``."""
    if len(local) == 2:
        host = socket.inet_pton(socket.AF_INET, local[0])
        return socket.IPPROTO_IP, _IP_PKTINFO, _INFO.pack(0, host, bytes(4))
    host = socket.inet_pton(socket.AF_INET6, local[0])
    return _IPPROTO_IPV6, _IPV6_PKTINFO, _INFO6.pack(host, local[3])
