"""CRC32C, the Castagnoli checksum of RFC 4960, appendix B, in pure Python.

``proxyv2`` uses it to check and to compute the checksum of a PROXY protocol header.
"""

from __future__ import annotations

__all__ = ["crc32c"]

_REVERSED_POLYNOMIAL = 0x82F63B78  # RFC 4960, appendix B: 0x1EDC6F41, least significant bit first


def _remainder(index: int) -> int:
    for _ in range(8):
        index = index >> 1 ^ (_REVERSED_POLYNOMIAL if index & 1 else 0)
    return index


_REMAINDERS = tuple(map(_remainder, range(256)))


def crc32c(data: bytes | bytearray) -> int:
    """The checksum of ``data``, from 0 to 2**32 - 1."""
    remainders = _REMAINDERS
    crc = 0xFFFFFFFF
    for byte in data:
        crc = remainders[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
