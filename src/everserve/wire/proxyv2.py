"""Version 2 of the PROXY protocol: a binary block (section 2.2 of the specification).

``proxy`` hands it the bytes that begin with a CR. The block is

    12 bytes  the signature
     1 byte   2 in the high four bits, the command in the low four
     1 byte   the family in the high four bits, the protocol in the low four
     2 bytes  the length of what follows, in network byte order
    then      the addresses, whose length depends on the family, and TLVs to the end

Each of these is checked as soon as it has arrived; addresses and TLVs once the block is complete. A
block whose length exceeds the limit is refused before any more of it is read.
"""

from __future__ import annotations

from everserve.errors import ProxyHeaderError
from everserve.wire.crc32c import crc32c
from everserve.wire.endpoints import Transport, pack, unpack
from everserve.wire.proxyheader import Command, ProxyHeader
from everserve.wire.tlvs import TLV, TLVType, first, join, offset_of, split

__all__ = ["encode", "missing", "read"]

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16
_VERSION = 0x20
_TRANSPORTS = {transport.value: transport for transport in Transport}


def read(data: bytes | bytearray, limit: int) -> tuple[ProxyHeader, int] | None:
    """The header at the start of ``data`` and its length, or ``None`` while its end is missing.

    Raises ``ProxyHeaderError``.
    """
    _check_start(data)
    if len(data) < _FIXED:
        return None
    length = _length(data)
    _check_length(data, length, limit)
    if len(data) < length:
        return None
    if _command(data) is Command.LOCAL:
        return ProxyHeader(2, Command.LOCAL), length
    return _relayed(bytes(data[:length])), length


def missing(data: bytes | bytearray) -> int:
    """How many bytes an unfinished block lacks at least."""
    return (_FIXED if len(data) < _FIXED else _length(data)) - len(data)


def encode(header: ProxyHeader, *, checksum: bool, align: int) -> bytes:
    """The block of a header of version 2, its checksum computed. Raises ``ProxyHeaderError``."""
    addresses = pack(header.transport, header.source, header.destination)
    tlvs = header.tlvs
    if checksum and first(tlvs, TLVType.CRC32C) is None:
        tlvs += ((TLVType.CRC32C, bytes(4)),)
    tlvs += _padding(_FIXED + len(addresses) + len(join(tlvs)), align)
    rest = addresses + join(tlvs)
    if len(rest) > 0xFFFF:
        raise ProxyHeaderError(f"addresses and TLVs have {len(rest)} bytes: 65535 are the most")
    start = bytes([_VERSION | header.command.value, header.transport.value])
    block = _SIGNATURE + start + len(rest).to_bytes(2, "big") + rest
    return _with_checksum(block, _FIXED + len(addresses), tlvs)


def _check_start(data: bytes | bytearray) -> None:
    """Raise ``ProxyHeaderError`` if the part that has arrived begins no valid header."""
    if data[: len(_SIGNATURE)] != _SIGNATURE[: len(data)]:
        raise ProxyHeaderError(
            f"{bytes(data[: len(_SIGNATURE)])!r} is not the signature of a header of version 2"
        )
    if len(data) > 12 and data[12] not in (_VERSION, _VERSION | 1):
        raise ProxyHeaderError(
            f"version and command are {data[12]:#04x}: 0x20 (LOCAL) and 0x21 (PROXY) are known"
        )
    if len(data) > 13 and _command(data) is Command.PROXY and data[13] not in _TRANSPORTS:
        known = ", ".join(f"{value:#04x}" for value in _TRANSPORTS)
        raise ProxyHeaderError(f"family and protocol are {data[13]:#04x}: {known} are known")


def _command(data: bytes | bytearray) -> Command:
    return Command(data[12] & 0x0F)


def _length(data: bytes | bytearray) -> int:
    return _FIXED + int.from_bytes(data[14:16], "big")


def _check_length(data: bytes | bytearray, length: int, limit: int) -> None:
    if length > limit:
        raise ProxyHeaderError(f"the header has {length} bytes, its limit is {limit}")
    if _command(data) is Command.LOCAL:
        return
    transport = _TRANSPORTS[data[13]]
    if length < _FIXED + transport.address_length:
        raise ProxyHeaderError(
            f"{length - _FIXED} bytes are too few for the addresses of {transport.name}:"
            f" they have {transport.address_length}"
        )


def _relayed(block: bytes) -> ProxyHeader:
    """The header of a complete block with the command PROXY."""
    transport = _TRANSPORTS[block[13]]
    start = _FIXED + transport.address_length
    if transport is Transport.UNSPEC:
        header = ProxyHeader(2, tlvs=_tlvs_if_any(block[start:]))
    else:
        source, destination = unpack(transport, block[_FIXED:start])
        tlvs = split(block[start:])
        header = ProxyHeader(2, Command.PROXY, transport, source, destination, tlvs)
    _verify_checksum(block, start, header.tlvs)
    return header


def _tlvs_if_any(rest: bytes) -> tuple[TLV, ...]:
    """The TLVs after UNSPEC; empty if addresses of an unknown form follow, which are ignored."""
    try:
        tlvs = split(rest)
        ProxyHeader(2, tlvs=tlvs)
    except ProxyHeaderError:
        return ()
    return tlvs


def _verify_checksum(block: bytes, start: int, tlvs: tuple[TLV, ...]) -> None:
    """Check the checksum, if there is one: it covers the whole header (section 2.2.3)."""
    if _with_checksum(block, start, tlvs) != block:
        raise ProxyHeaderError("the CRC32C is not that of the header: its bytes were changed")


def _with_checksum(block: bytes, start: int, tlvs: tuple[TLV, ...]) -> bytes:
    """The block with its checksum computed, if it has one; its TLVs begin at ``start``."""
    offset = offset_of(tlvs, TLVType.CRC32C)
    if offset is None:
        return block
    before, after = block[: start + offset], block[start + offset + 4 :]
    return before + crc32c(before + bytes(4) + after).to_bytes(4, "big") + after


def _padding(length: int, align: int) -> tuple[TLV, ...]:
    """The NOOP that pads ``length`` to a multiple of ``align``; it has at least 3 bytes."""
    if align < 1:
        raise ProxyHeaderError(f"a header cannot be aligned to {align} bytes: give 1 or more")
    gap = -length % align
    while 0 < gap < 3:
        gap += align
    return ((TLVType.NOOP, bytes(gap - 3)),) if gap else ()
