"""Version 1 of the PROXY protocol: one line of text (section 2.1 of the specification).

``proxy`` hands it the bytes that begin with a ``P``.

    PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\\r\\n

A line has at most 107 bytes with its CRLF, exactly one space between two fields, and decimal
numbers without leading zeros. Anything may follow ``UNKNOWN``, and is ignored. An unfinished line is
refused as soon as no continuation can make it a header.
"""

from __future__ import annotations

import ipaddress
import re
import struct

from everserve.errors import ProxyHeaderError
from everserve.wire.endpoints import MAPPED, Address, Transport, ipv6_text, pack
from everserve.wire.proxyheader import Command, ProxyHeader

__all__ = ["encode", "missing", "read"]

_LONGEST = 107
_SHORTEST = len(b"PROXY UNKNOWN\r\n")
_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")
_INTERNET = {b"PROXY TCP4 ": Transport.TCP4, b"PROXY TCP6 ": Transport.TCP6}
_UNKNOWN = b"PROXY UNKNOWN"
_OPENINGS = (*_INTERNET, _UNKNOWN)


def read(data: bytes | bytearray, limit: int) -> tuple[ProxyHeader, int] | None:
    """The header at the start of ``data`` and its length, or ``None`` while its end is missing.

    Raises ``ProxyHeaderError``.
    """
    longest = min(limit, _LONGEST)
    end = data.find(b"\r\n", 0, longest)
    if end >= 0:
        return _header(bytes(data[:end])), end + 2
    _check_beginning(bytes(data[:longest]))
    if len(data) + (1 if data.endswith(b"\r") else 2) > longest:
        raise ProxyHeaderError(f"a header of version 1 ends with CRLF within {longest} bytes")
    return None


def missing(data: bytes | bytearray) -> int:
    """How many bytes an unfinished line lacks at least: 2 for each missing space, 2 for CRLF."""
    if len(data) < _SHORTEST:
        return _SHORTEST - len(data)
    if data.endswith(b"\r"):
        return 1
    return 2 if data.startswith(_UNKNOWN) else 2 * (5 - data.count(b" ")) + 2


def encode(header: ProxyHeader) -> bytes:
    """The line of a header of version 1. Raises ``ProxyHeaderError`` if an address does not fit."""
    if header.transport is Transport.UNSPEC:
        return _UNKNOWN + b"\r\n"
    block = pack(header.transport, header.source, header.destination)
    source, destination = block[: len(block) // 2 - 2], block[len(block) // 2 - 2 : -4]
    source_port, destination_port = struct.unpack("!HH", block[-4:])
    hosts = f"{_text(source)} {_text(destination)}"
    line = f"PROXY {header.transport.name} {hosts} {source_port} {destination_port}\r\n"
    return line.encode("ascii")


def _text(packed: bytes) -> str:
    """An address in digits and colons: section 2.1 allows no dots in IPv6."""
    if packed.startswith(MAPPED):
        return "::ffff:{:x}:{:x}".format(*struct.unpack("!HH", packed[len(MAPPED) :]))
    return str(ipaddress.ip_address(packed))


def _header(line: bytes) -> ProxyHeader:
    opening = _opening(line)
    if line == _UNKNOWN or line.startswith(_UNKNOWN + b" "):
        return ProxyHeader(1)
    transport = _INTERNET.get(line[: len(opening)])
    fields = line[len(opening) :].split(b" ")
    if transport is None or len(fields) != 4:
        raise ProxyHeaderError(f"{line!r} does not have the six words of a header of version 1")
    source, destination = (_host(transport, field) for field in fields[:2])
    source_port, destination_port = map(_port, fields[2:])
    return ProxyHeader(
        1,
        Command.PROXY,
        transport,
        _address(transport, source, source_port),
        _address(transport, destination, destination_port),
    )


def _address(transport: Transport, host: str, port: int) -> Address:
    return (host, port) if transport is Transport.TCP4 else (host, port, 0, 0)


def _opening(line: bytes) -> bytes:
    """The beginning of the line, or one that the line can still become."""
    for opening in _OPENINGS:
        if opening.startswith(line[: len(opening)]):
            return opening
    raise ProxyHeaderError(
        f"a header of version 1 begins with 'PROXY', one space, and TCP4, TCP6 or UNKNOWN,"
        f" not with {line[: len(_UNKNOWN)]!r}"
    )


def _check_unknown(line: bytes) -> None:
    """Check that a space and anything follows UNKNOWN, or CRLF, or the CR of an unfinished CRLF."""
    rest = line[len(_UNKNOWN) :]
    if rest and not rest.startswith(b" ") and rest != b"\r":
        raise ProxyHeaderError(f"after 'PROXY UNKNOWN' comes a space or CRLF, not {rest[:8]!r}")


def _check_beginning(line: bytes) -> None:
    """Raise ``ProxyHeaderError`` if no continuation can make this beginning a header."""
    opening = _opening(line)
    if opening == _UNKNOWN:
        _check_unknown(line)
    elif len(line) > len(opening):
        _check_fields(_INTERNET[opening], line[len(opening) :])


def _check_fields(transport: Transport, beginning: bytes) -> None:
    *whole, last = beginning.split(b" ")
    if len(whole) == 3 and last.endswith(b"\r"):
        whole, last = [*whole, last[:-1]], b""
    elif len(whole) > 3:
        raise ProxyHeaderError("after the destination port comes CRLF, not a space")
    for place, field in enumerate(whole):
        _field(transport, place, field)
    if last:
        _check_last(transport, len(whole), last)


def _check_last(transport: Transport, place: int, beginning: bytes) -> None:
    """Check that one of the tails completes the field that is still arriving."""
    for tail in _TAILS:
        try:
            _field(transport, place, beginning + tail)
        except ProxyHeaderError:
            continue
        return
    _field(transport, place, beginning)


# One of these completes every beginning of an address or a port: "0.0" completes "192.0.", "::"
# completes "1:2".
_TAILS = (b"", b"0", b"::", b":", b".0", b".0.0", b".0.0.0", b"0.0", b"0.0.0")


def _field(transport: Transport, place: int, field: bytes) -> object:
    return _host(transport, field) if place < 2 else _port(field)


def _host(transport: Transport, field: bytes) -> str:
    """The host as ``getpeername`` writes it.

    The specification allows only digits and colons in IPv6. Dots at the end are accepted too:
    senders that use ``inet_ntop``, as HAProxy does, write embedded IPv4 addresses with dots.
    """
    try:
        text = field.decode("ascii")
        if transport is Transport.TCP4:
            return str(ipaddress.IPv4Address(text))
        if "%" not in text:
            return ipv6_text(ipaddress.IPv6Address(text).packed)
    except ValueError:
        pass
    raise ProxyHeaderError(f"{field!r} is not a host of {transport.name}")


def _port(field: bytes) -> int:
    if not _PORT.fullmatch(field) or int(field) > 0xFFFF:
        raise ProxyHeaderError(f"{field!r} is not a port: 0 to 65535, without leading zeros")
    return int(field)
