"""The two ends of a relayed connection: as ``getpeername`` gives them, and as bytes of a header.

``proxyv2`` packs and unpacks address blocks with it, ``proxyv1`` writes and reads hosts as text,
``proxyheader`` derives from it the transport of two addresses.
"""

from __future__ import annotations

import enum
import ipaddress
import struct
from collections.abc import Callable

from everserve.errors import ProxyHeaderError

__all__ = ["MAPPED", "Address", "Transport", "ipv6_text", "pack", "transport_of", "unpack"]

Address = tuple[str, int] | tuple[str, int, int, int] | str | bytes
"""One end, in the shapes of ``client_address``.

``("192.0.2.1", 80)`` over IPv4. ``("2001:db8::1", 80, 0, 0)`` over IPv6: a header has no flow and no
scope, so both are 0. A path as ``str``, ``""`` for an unnamed Unix socket, and the name of an
abstract one as ``bytes`` that begin with a NUL.
"""


MAPPED = bytes(10) + b"\xff\xff"
"""The prefix of an IPv6 address that stands for an IPv4 address (RFC 4291, section 2.5.5.2)."""


class Transport(enum.Enum):
    """The relayed transport: the values are the 14th byte of a header of version 2 (section 2.2)."""

    UNSPEC = 0x00
    TCP4 = 0x11
    UDP4 = 0x12
    TCP6 = 0x21
    UDP6 = 0x22
    UNIX_STREAM = 0x31
    UNIX_DGRAM = 0x32

    @property
    def family(self) -> int:
        """0 for no addresses, 1 for IPv4, 2 for IPv6, 3 for Unix (section 2.2)."""
        return self.value >> 4

    @property
    def address_length(self) -> int:
        """The number of bytes of both addresses in a header of version 2."""
        return (0, 12, 36, 216)[self.family]


def transport_of(source: Address | None, destination: Address | None, datagram: bool) -> Transport:
    """The transport of a connection between the two. Raises ``ProxyHeaderError`` if they differ."""
    family = _family(source)
    if family != _family(destination):
        raise ProxyHeaderError(
            f"{source!r} and {destination!r} are of two families: a header has only one;"
            " write an IPv4 host as ::ffff:192.0.2.1 where the other one is IPv6"
        )
    return Transport(family << 4 | (2 if datagram else 1)) if family else Transport.UNSPEC


def _family(address: Address | None) -> int:
    if address is None:
        return 0
    if isinstance(address, tuple):
        return 2 if ":" in str(address[0]) else 1
    return 3


def unpack(transport: Transport, block: bytes) -> tuple[Address, Address]:
    """Source and destination of an address block, whose length is ``transport.address_length``."""
    return _UNPACKERS[transport.family](block)


def pack(transport: Transport, source: Address | None, destination: Address | None) -> bytes:
    """The address block of two ends; flow and scope of IPv6 are left out.

    Raises ``ProxyHeaderError`` if an end does not fit the transport.
    """
    if transport.family == 0:
        return b""
    if transport.family == 3:
        return _pack_path(source) + _pack_path(destination)
    source_host, source_port = _pack_host(transport, source)
    destination_host, destination_port = _pack_host(transport, destination)
    ports = struct.pack("!HH", source_port, destination_port)
    return source_host + destination_host + ports


def ipv6_text(packed: bytes) -> str:
    """An IPv6 address as ``inet_ntop`` writes it: embedded IPv4 addresses with dots.

    (``str`` of an ``IPv6Address`` does so only from Python 3.13 on.)
    """
    if packed.startswith(MAPPED):
        return f"::ffff:{ipaddress.IPv4Address(packed[12:])}"
    if packed.startswith(bytes(12)) and any(packed[12:14]):
        return f"::{ipaddress.IPv4Address(packed[12:])}"
    return str(ipaddress.IPv6Address(packed))


def _unpack_ipv4(block: bytes) -> tuple[Address, Address]:
    source, destination, source_port, destination_port = struct.unpack("!4s4sHH", block)
    return (
        (".".join(map(str, source)), source_port),
        (".".join(map(str, destination)), destination_port),
    )


def _unpack_ipv6(block: bytes) -> tuple[Address, Address]:
    source, destination, source_port, destination_port = struct.unpack("!16s16sHH", block)
    return (
        (ipv6_text(source), source_port, 0, 0),
        (ipv6_text(destination), destination_port, 0, 0),
    )


def _unpack_unix(block: bytes) -> tuple[Address, Address]:
    return _unpack_path(block[:_PATH_ROOM]), _unpack_path(block[_PATH_ROOM:])


_PATH_ROOM = 108  # sizeof(sun_path), section 2.2

_UNPACKERS: dict[int, Callable[[bytes], tuple[Address, Address]]] = {
    1: _unpack_ipv4,
    2: _unpack_ipv6,
    3: _unpack_unix,
}


def _unpack_path(room: bytes) -> Address:
    """A path ends before its first NUL. In an abstract name, only the NULs at its end are padding."""
    if room[0] == 0:
        return room.rstrip(b"\0") or ""
    return room.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _pack_path(address: Address | None) -> bytes:
    name = _path_bytes(address)
    if len(name) > _PATH_ROOM:
        raise ProxyHeaderError(f"{address!r} has {len(name)} bytes, a header holds {_PATH_ROOM}")
    if name[:1] != b"\0" and b"\0" in name:
        raise ProxyHeaderError(f"{address!r} is not the path of a Unix socket: it has a NUL within")
    return name.ljust(_PATH_ROOM, b"\0")


def _path_bytes(address: Address | None) -> bytes:
    if isinstance(address, bytes):
        return address
    try:
        if isinstance(address, str):
            return address.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        pass
    raise ProxyHeaderError(f"{address!r} is not the path of a Unix socket: give a str, or bytes")


def _pack_host(transport: Transport, address: Address | None) -> tuple[bytes, int]:
    if not isinstance(address, tuple):
        raise ProxyHeaderError(f"{address!r} is not a {transport.name} address: give (host, port)")
    host, port = address[:2]
    if not isinstance(port, int) or not 0 <= port <= 0xFFFF:
        raise ProxyHeaderError(f"{port!r} is not a port: give an int from 0 to 65535")
    return _host_bytes(transport, host), port


def _host_bytes(transport: Transport, host: str) -> bytes:
    try:
        if isinstance(host, str):
            return _HOSTS[transport.family](host).packed
    except ValueError:
        pass
    raise ProxyHeaderError(f"{host!r} is not a host of a {transport.name} address: give its number")


_HOSTS: dict[int, type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]] = {
    1: ipaddress.IPv4Address,
    2: ipaddress.IPv6Address,
}
