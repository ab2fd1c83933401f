"""Type-length-value vectors: the contents of a PROXY protocol header after the addresses.

``proxyv2`` splits and joins them, ``proxyheader`` keeps them and looks values up by their type.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable

from everserve.errors import ProxyHeaderError

__all__ = [
    "CUSTOM_TYPES",
    "EXPERIMENT_TYPES",
    "FUTURE_TYPES",
    "TLV",
    "TLVType",
    "check",
    "first",
    "join",
    "offset_of",
    "split",
    "text",
]

TLV = tuple[int, bytes]
"""Type, from 0 to 255, and value, of up to 65535 bytes."""


class TLVType(enum.IntEnum):
    """The registered types (section 2.2); those named ``SSL_...`` occur inside the value of ``SSL``."""

    ALPN = 0x01
    AUTHORITY = 0x02
    CRC32C = 0x03
    NOOP = 0x04
    UNIQUE_ID = 0x05
    SSL = 0x20
    SSL_VERSION = 0x21
    SSL_CN = 0x22
    SSL_CIPHER = 0x23
    SSL_SIG_ALG = 0x24
    SSL_KEY_ALG = 0x25
    SSL_GROUP = 0x26
    SSL_SIG_SCHEME = 0x27
    SSL_CLIENT_CERT = 0x28
    NETNS = 0x30


# Section 2.2.8.
CUSTOM_TYPES = range(0xE0, 0xF0)
"""Types for applications: the protocol will never use them."""
EXPERIMENT_TYPES = range(0xF0, 0xF8)
"""Types for experiments, not for production."""
FUTURE_TYPES = range(0xF8, 0x100)
"""Types that are reserved: the protocol may give them a meaning."""

_HEAD = 3  # bytes of type and length
_LONGEST_VALUE = 0xFFFF
_LONGEST_UNIQUE_ID = 128  # section 2.2.5
_CHECKSUM_LENGTH = 4  # section 2.2.3

# Sections 2.2.2, 2.2.6, 2.2.7.
_ENCODINGS = {
    TLVType.AUTHORITY: "utf-8",
    TLVType.NETNS: "ascii",
    TLVType.SSL_VERSION: "ascii",
    TLVType.SSL_CN: "utf-8",
    TLVType.SSL_CIPHER: "ascii",
    TLVType.SSL_SIG_ALG: "ascii",
    TLVType.SSL_KEY_ALG: "ascii",
    TLVType.SSL_GROUP: "ascii",
    TLVType.SSL_SIG_SCHEME: "ascii",
}


def split(data: bytes) -> tuple[TLV, ...]:
    """The vectors of ``data``, in order. Raises ``ProxyHeaderError`` if they do not fill it exactly."""
    tlvs = []
    start = 0
    while start < len(data):
        kind = data[start]
        value = start + _HEAD
        end = value + int.from_bytes(data[start + 1 : value], "big")
        if max(value, end) > len(data):
            raise ProxyHeaderError(
                f"the TLV of type {kind:#04x}, {start} bytes after the addresses, needs"
                f" {max(value, end) - len(data)} bytes more than the header has"
            )
        tlvs.append((kind, data[value:end]))
        start = end
    return tuple(tlvs)


def join(tlvs: Iterable[TLV]) -> bytes:
    """The bytes of vectors that ``check`` has passed."""
    return b"".join(bytes([kind]) + len(value).to_bytes(2, "big") + value for kind, value in tlvs)


def first(tlvs: Iterable[TLV], kind: int) -> bytes | None:
    """The value of the first vector of a type; ``None`` if there is none."""
    for other, value in tlvs:
        if other == kind:
            return value
    return None


def text(tlvs: Iterable[TLV], kind: TLVType) -> str | None:
    """The text of the first vector of a type; ``None`` if there is none."""
    value = first(tlvs, kind)
    return None if value is None else _decode(kind, value)


def offset_of(tlvs: Iterable[TLV], kind: int) -> int | None:
    """The offset in ``join(tlvs)`` of the value of the first vector of a type."""
    offset = 0
    for other, value in tlvs:
        if other == kind:
            return offset + _HEAD
        offset += _HEAD + len(value)
    return None


def check(tlvs: Iterable[TLV]) -> None:
    """Raise ``ProxyHeaderError`` for a value that the specification does not allow for its type.

    Section 2.2 does not define a type that occurs twice: all are kept, and the first one counts. The
    checksum is the exception: two checksums cannot both be right.
    """
    checksums = 0
    for kind, value in tlvs:
        if not 0 <= kind <= 0xFF or len(value) > _LONGEST_VALUE:
            raise ProxyHeaderError(
                f"a TLV of type {kind} with {len(value)} bytes cannot be written:"
                f" the type ends at 255, the value at {_LONGEST_VALUE} bytes"
            )
        if kind in _CHECKS:
            _CHECKS[kind](value)
        if kind in _ENCODINGS:
            _decode(TLVType(kind), value)
        checksums += kind == TLVType.CRC32C
    if checksums > 1:
        raise ProxyHeaderError(f"a header has one CRC32C, not {checksums}")


def _check_checksum(value: bytes) -> None:
    if len(value) != _CHECKSUM_LENGTH:
        raise ProxyHeaderError(f"a CRC32C has {_CHECKSUM_LENGTH} bytes, not {len(value)}")


def _check_unique_id(value: bytes) -> None:
    if len(value) > _LONGEST_UNIQUE_ID:
        raise ProxyHeaderError(
            f"a UNIQUE_ID has at most {_LONGEST_UNIQUE_ID} bytes, not {len(value)}"
        )


def _decode(kind: TLVType, value: bytes) -> str:
    try:
        return value.decode(_ENCODINGS[kind])
    except UnicodeDecodeError:
        raise ProxyHeaderError(
            f"{kind.name} is text in {_ENCODINGS[kind]}, not {value[:64]!r}"
        ) from None


_CHECKS: dict[int, Callable[[bytes], None]] = {
    TLVType.CRC32C: _check_checksum,
    TLVType.UNIQUE_ID: _check_unique_id,
}
