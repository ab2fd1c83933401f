"""The PROXY protocol, versions 1 and 2: the client behind the proxy that opened a connection.

``admission`` feeds a ``ProxyDecoder`` with the first bytes of a connection from a trusted proxy, or
passes a datagram to ``parse``. ``encode`` writes the header of an outgoing connection.

The specification is HAProxy's ``doc/proxy-protocol.txt``, revision of 2026/04/27. Sections named in
this package are its sections.
"""

from __future__ import annotations

from typing import Final

from everserve.errors import ProxyHeaderError
from everserve.wire import proxyv1, proxyv2
from everserve.wire.endpoints import Address, Transport
from everserve.wire.proxyheader import Command, ProxyHeader, Version
from everserve.wire.sslinfo import SSLClient, SSLInfo
from everserve.wire.tlvs import CUSTOM_TYPES, EXPERIMENT_TYPES, FUTURE_TYPES, TLV, TLVType

__all__ = [
    "CUSTOM_TYPES",
    "EXPERIMENT_TYPES",
    "FUTURE_TYPES",
    "LIMIT",
    "TLV",
    "Address",
    "Command",
    "ProxyDecoder",
    "ProxyHeader",
    "ProxyHeaderError",
    "SSLClient",
    "SSLInfo",
    "TLVType",
    "Transport",
    "Version",
    "encode",
    "parse",
]

LIMIT: Final = 4096
"""The default limit of a header in bytes, TLVs included (the protocol allows 65551)."""

_SHORTEST = len(b"PROXY UNKNOWN\r\n")
_FIRST_BYTES: dict[int, Version] = {ord("P"): 1, ord("\r"): 2}


class ProxyDecoder:
    """Reads one header from the start of a stream, which may arrive in any pieces.

    ``version`` is the accepted version, ``None`` for both; ``limit`` is the longest header in bytes.
    The decoder never guesses whether there is a header: it refuses bytes that cannot begin one, at the
    first byte if possible. A decoder reads one header: make a new one for each connection.
    """

    def __init__(self, *, version: Version | None = None, limit: int = LIMIT) -> None:
        _check_version(version)
        self._version = version
        self._limit = limit
        self._data = bytearray()
        self._header: ProxyHeader | None = None
        self._refusal = ""
        self._consumed = 0

    @property
    def consumed(self) -> int:
        """How many of the bytes fed belong to the header; 0 until it is complete.

        The bytes fed after them belong to the next protocol, and to the caller.
        """
        return self._consumed

    @property
    def needed(self) -> int:
        """How many bytes are missing at least; 0 once the header is complete or refused.

        A caller that reads no more than this from a socket reads nothing of the next protocol.
        """
        if self._header is not None or self._refusal:
            return 0
        version = _version_of(self._data, self._version) if self._data else self._version
        if version is None:
            return _SHORTEST
        missing = proxyv1.missing if version == 1 else proxyv2.missing
        return missing(self._data)

    def feed(self, data: bytes | bytearray | memoryview) -> ProxyHeader | None:
        """Take the next bytes. Returns the header once it is complete, ``None`` before.

        Raises ``ProxyHeaderError`` as soon as the bytes cannot become a header, and again at each
        later call. Once the header is complete, later calls return it again and take no bytes.
        """
        if self._refusal:
            raise ProxyHeaderError(self._refusal)
        if self._header is None:
            self._data += data
            self._read()
        return self._header

    def _read(self) -> None:
        try:
            found = _read(self._data, self._version, self._limit)
        except ProxyHeaderError as error:
            self._refusal = str(error)
            self._data = bytearray()
            raise
        if found is not None:
            self._header, self._consumed = found
            self._data = bytearray()


def parse(
    data: bytes | bytearray | memoryview, *, version: Version | None = None, limit: int = LIMIT
) -> tuple[ProxyHeader, int]:
    """The header at the start of a datagram, and its length: the payload begins there.

    Each datagram has its own complete header (section 2). ``version`` and ``limit`` are those of
    ``ProxyDecoder``. Raises ``ProxyHeaderError``.
    """
    _check_version(version)
    found = _read(bytes(data), version, limit)
    if found is None:
        raise ProxyHeaderError(f"the header is incomplete: it continues after {len(data)} bytes")
    return found


def encode(header: ProxyHeader, *, checksum: bool = False, align: int = 1) -> bytes:
    """The bytes of a header: send them before all others, in one call.

    ``checksum`` adds a CRC32C. ``align`` pads with a NOOP to a multiple of that length. Both need
    version 2. A CRC32C among the header's own TLVs is recomputed. A header of at most 536 bytes
    arrives in one TCP segment everywhere (section 2). Raises ``ProxyHeaderError``.
    """
    if header.version == 2:
        return proxyv2.encode(header, checksum=checksum, align=align)
    if checksum or align != 1:
        raise ProxyHeaderError("version 1 has no checksum and no padding: use version 2")
    return proxyv1.encode(header)


def _read(
    data: bytes | bytearray, version: Version | None, limit: int
) -> tuple[ProxyHeader, int] | None:
    if not data:
        return None
    read = proxyv1.read if _version_of(data, version) == 1 else proxyv2.read
    return read(data, limit)


def _version_of(data: bytes | bytearray, expected: Version | None) -> Version:
    """The version, from the first byte. Raises ``ProxyHeaderError`` if no expected header begins so."""
    found: Version | None = _FIRST_BYTES.get(data[0])
    if found is None or expected not in (None, found):
        raise ProxyHeaderError(
            f"no PROXY protocol header{f' of version {expected}' if expected else ''} begins with"
            f" {bytes(data[:16])!r}: the peer must be a proxy that sends one first"
        )
    return found


def _check_version(version: Version | None) -> None:
    if version not in (None, 1, 2):
        raise ValueError(f"there is no version {version!r}: give 1, 2, or None for both")
