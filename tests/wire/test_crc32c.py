"""CRC32C: the published examples."""

import pytest

from everserve.wire.crc32c import crc32c


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        # RFC 3720, appendix B.4.
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_the_published_examples(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum
    assert crc32c(bytearray(data)) == checksum
