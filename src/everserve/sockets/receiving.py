"""What a socket of datagrams may receive: the size of its buffer, broadcasts, groups, credentials.

``server.udp`` and ``server.unix`` call it as they bind; ``sockets.datagrams`` receives.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

from everserve.sockets.listening import index_of, naming

__all__ = ["allow_broadcast", "enlarge_buffer", "join", "pass_credentials"]

_SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>: Python has no name for it
_INTERFACE = struct.Struct("@i")


def enlarge_buffer(sock: socket.socket, size: int) -> int:
    """Ask for a receive buffer of ``size`` bytes. Returns how many the system gives, at most ``size``.

    Beyond ``net.core.rmem_max`` the kernel obeys a process with CAP_NET_ADMIN alone (socket(7)).
    """
    size = min(size, 2**30 - 1)  # the kernel doubles it, in an int
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    if _buffer_of(sock) < size:
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
        except OSError:
            pass  # not allowed, or not Linux
    return min(size, _buffer_of(sock))


def _buffer_of(sock: socket.socket) -> int:
    """The bytes that were asked for; Linux reports twice as many, for its own bookkeeping."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def allow_broadcast(sock: socket.socket) -> None:
    """Let the socket send to broadcast addresses."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)


def pass_credentials(sock: socket.socket) -> None:
    """Have each datagram bring the process that sent it (``SO_PASSCRED``, unix(7))."""
    if hasattr(socket, "SO_PASSCRED"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


def join(sock: socket.socket, host: str, interface: str) -> None:
    """Become a member of the multicast group ``host``, on one interface; what is sent leaves there too.

    ``interface`` is its name, or an IPv4 address that it has; ``""``: the system chooses. Raises
    ``OSError`` for an interface that there is not.
    """
    group, _, zone = host.partition("%")
    where = interface or zone
    with naming(f"{group} on {where}" if where else group):
        if sock.family == socket.AF_INET6:
            _join_ipv6(sock, group, where)
        else:
            _join_ipv4(sock, group, where)


def _join_ipv6(sock: socket.socket, group: str, interface: str) -> None:
    index = _INTERFACE.pack(index_of(interface) if interface else 0)
    member = socket.inet_pton(socket.AF_INET6, group) + index
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
    if interface:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)


def _join_ipv4(sock: socket.socket, group: str, interface: str) -> None:
    place = _place(interface)  # the end of a struct ip_mreqn: ip(7)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + place)
    if interface:
        own = socket.inet_aton("0.0.0.0") + place
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)


def _place(interface: str) -> bytes:
    try:
        return socket.inet_aton(str(ipaddress.IPv4Address(interface))) + _INTERFACE.pack(0)
    except ValueError:
        index = index_of(interface) if interface else 0
        return socket.inet_aton("0.0.0.0") + _INTERFACE.pack(index)
