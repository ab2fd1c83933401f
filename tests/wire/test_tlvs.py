"""TLVs: they fill their space exactly, and each registered type has the specified form."""

import pytest
from hypothesis import given
from tests.wire.headers import tlvs

from everserve.errors import ProxyHeaderError
from everserve.wire.tlvs import (
    CUSTOM_TYPES,
    EXPERIMENT_TYPES,
    FUTURE_TYPES,
    TLV,
    TLVType,
    check,
    first,
    join,
    offset_of,
    split,
    text,
)


@pytest.mark.parametrize(
    ("data", "vectors"),
    [
        (b"", ()),
        (b"\4\0\0", ((4, b""),)),
        (b"\1\0\2h2\xe0\0\1x", ((1, b"h2"), (0xE0, b"x"))),
        (b"\4\1\0" + bytes(256), ((4, bytes(256)),)),
    ],
)
def test_vectors_are_split_and_joined(data: bytes, vectors: tuple[TLV, ...]) -> None:
    assert split(data) == vectors
    assert join(vectors) == data


@given(tlvs)
def test_what_was_joined_splits_the_same(vectors: list[TLV]) -> None:
    assert split(join(vectors)) == tuple(vectors)


@pytest.mark.parametrize(
    ("data", "lacks"),
    [(b"\1", 2), (b"\1\0", 1), (b"\1\0\1", 1), (b"\1\0\0\4\xff\xff", 65535), (b"\1\0\2h2\4", 2)],
)
def test_vectors_that_do_not_fill_their_space_are_refused(data: bytes, lacks: int) -> None:
    with pytest.raises(ProxyHeaderError, match=f"needs {lacks} bytes more"):
        split(data)


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        (TLVType.CRC32C, b"123", "4 bytes, not 3"),
        (TLVType.CRC32C, b"12345", "4 bytes, not 5"),
        (TLVType.UNIQUE_ID, bytes(129), "at most 128 bytes, not 129"),
        (TLVType.AUTHORITY, b"\xff", "AUTHORITY is text in utf-8"),
        (TLVType.NETNS, "ä".encode(), "NETNS is text in ascii"),
        (256, b"", "cannot be written"),
        (-1, b"", "cannot be written"),
        (0xE0, bytes(65536), "cannot be written"),
    ],
)
def test_a_value_of_the_wrong_form_is_refused(kind: int, value: bytes, reason: str) -> None:
    with pytest.raises(ProxyHeaderError, match=reason):
        check([(kind, value)])


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (TLVType.CRC32C, b"1234"),
        (TLVType.UNIQUE_ID, bytes(128)),
        (TLVType.AUTHORITY, "bücher.example".encode()),
        (TLVType.NETNS, b"blue"),
        (TLVType.ALPN, b"\xff"),
        (0xE0, bytes(65535)),
    ],
)
def test_a_value_of_the_right_form_passes(kind: int, value: bytes) -> None:
    check([(kind, value)])


def test_the_first_vector_of_a_type_counts() -> None:
    twice = [(TLVType.AUTHORITY, b"a"), (TLVType.NOOP, b""), (TLVType.AUTHORITY, b"b")]
    check(twice)
    assert first(twice, TLVType.AUTHORITY) == b"a"
    assert text(twice, TLVType.AUTHORITY) == "a"
    assert offset_of(twice, TLVType.NOOP) == 7
    assert first(twice, TLVType.ALPN) is None
    assert text(twice, TLVType.NETNS) is None
    assert offset_of(twice, TLVType.ALPN) is None


def test_two_checksums_are_refused() -> None:
    with pytest.raises(ProxyHeaderError, match="one CRC32C, not 2"):
        check([(TLVType.CRC32C, bytes(4))] * 2)


def test_the_types_are_those_of_the_specification() -> None:
    assert {kind.name: kind.value for kind in TLVType} == {
        "ALPN": 0x01,
        "AUTHORITY": 0x02,
        "CRC32C": 0x03,
        "NOOP": 0x04,
        "UNIQUE_ID": 0x05,
        "SSL": 0x20,
        "SSL_VERSION": 0x21,
        "SSL_CN": 0x22,
        "SSL_CIPHER": 0x23,
        "SSL_SIG_ALG": 0x24,
        "SSL_KEY_ALG": 0x25,
        "SSL_GROUP": 0x26,
        "SSL_SIG_SCHEME": 0x27,
        "SSL_CLIENT_CERT": 0x28,
        "NETNS": 0x30,
    }
    ranges = [(kinds[0], kinds[-1]) for kinds in (CUSTOM_TYPES, EXPERIMENT_TYPES, FUTURE_TYPES)]
    assert ranges == [(0xE0, 0xEF), (0xF0, 0xF7), (0xF8, 0xFF)]
