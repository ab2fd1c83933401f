"""Version 2: blocks byte by byte, and the effect of one wrong byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.headers import AMAZON, SIGNATURE, TCP4_ENDS, block, relayed, tlv

from everserve.errors import ProxyHeaderError
from everserve.wire.proxy import (
    Command,
    ProxyDecoder,
    ProxyHeader,
    TLVType,
    Transport,
    encode,
    parse,
)

IPV4 = bytes([192, 168, 0, 1, 192, 168, 0, 11]) + b"\xdc\x04\x01\xbb"  # as TCP4_ENDS
IPV6 = bytes(15) + b"\1" + b"\x20\1\x0d\xb8" + bytes(11) + b"\2" + b"\0\x50\1\xbb"
IPV6_ENDS = (("::1", 80, 0, 0), ("2001:db8::2", 443, 0, 0))
UNIX = b"/run/a".ljust(108, b"\0") + b"\0b".ljust(108, b"\0")
UNIX_ENDS = ("/run/a", b"\0b")


@pytest.mark.parametrize(
    ("byte", "addresses", "transport", "ends"),
    [
        (0x11, IPV4, Transport.TCP4, TCP4_ENDS),
        (0x12, IPV4, Transport.UDP4, TCP4_ENDS),
        (0x21, IPV6, Transport.TCP6, IPV6_ENDS),
        (0x22, IPV6, Transport.UDP6, IPV6_ENDS),
        (0x31, UNIX, Transport.UNIX_STREAM, UNIX_ENDS),
        (0x32, UNIX, Transport.UNIX_DGRAM, UNIX_ENDS),
    ],
)
@pytest.mark.parametrize("more", [b"", tlv(TLVType.ALPN, b"h2") + tlv(0xE0, b"")])
def test_a_block_is_read_and_written(
    byte: int,
    addresses: bytes,
    transport: Transport,
    ends: tuple[object, object],
    more: bytes,
) -> None:
    data = block(1, byte, addresses + more)
    header, length = parse(data + b"surplus")
    assert length == len(data)
    assert (header.version, header.command) == (2, Command.PROXY)
    assert (header.transport, (header.source, header.destination)) == (transport, ends)
    assert header.tlvs == (((1, b"h2"), (0xE0, b"")) if more else ())
    assert encode(header) == data


def test_a_header_of_a_load_balancer_is_read_and_its_checksum_is_right() -> None:
    header, length = parse(AMAZON)
    assert length == len(AMAZON) == 100
    assert header.source == ("172.31.7.113", 51442)
    assert header.destination == ("172.31.10.31", 80)
    assert header.has_checksum
    assert header.tlv(0xEA) == b"\x01vpce-08d2bf15fac5001c9"
    assert encode(header) == AMAZON


@pytest.mark.parametrize("rest", [b"", IPV4, b"\xff" * 300, tlv(TLVType.CRC32C, b"wrong")])
@pytest.mark.parametrize("byte", [0x00, 0x11, 0x31, 0x13, 0xFF])
def test_of_local_all_but_the_length_is_skipped(byte: int, rest: bytes) -> None:
    data = block(0, byte, rest)
    assert parse(data + b"surplus") == (ProxyHeader(2, Command.LOCAL), len(data))


@pytest.mark.parametrize("rest", [b"", IPV4, IPV6, b"\xff" * 300, tlv(TLVType.CRC32C, b"wrong")])
def test_of_unspec_addresses_of_any_form_are_ignored(rest: bytes) -> None:
    data = block(1, 0x00, rest)
    assert parse(data + b"surplus") == (ProxyHeader(2), len(data))


def test_of_unspec_tlvs_are_kept_and_their_checksum_checked() -> None:
    data = encode(ProxyHeader.build(tlvs=[(TLVType.UNIQUE_ID, b"7")]), checksum=True)
    assert parse(data)[0].unique_id == b"7"
    with pytest.raises(ProxyHeaderError, match="CRC32C"):
        parse(data.replace(b"7", b"8"))


@pytest.mark.parametrize("byte", sorted(set(range(256)) - {each.value for each in Transport}))
def test_other_families_and_protocols_are_refused(byte: int) -> None:
    with pytest.raises(ProxyHeaderError, match=f"{byte:#04x}"):
        ProxyDecoder().feed(SIGNATURE + bytes([0x21, byte]))


@pytest.mark.parametrize("byte", sorted(set(range(256)) - {0x20, 0x21}))
def test_other_versions_and_commands_are_refused(byte: int) -> None:
    with pytest.raises(ProxyHeaderError, match=f"{byte:#04x}"):
        ProxyDecoder().feed(SIGNATURE + bytes([byte]))


@pytest.mark.parametrize("place", range(12))
def test_another_signature_is_refused_at_the_byte_that_differs(place: int) -> None:
    decoder = ProxyDecoder(version=2)
    assert decoder.feed(SIGNATURE[:place]) is None
    with pytest.raises(ProxyHeaderError):
        decoder.feed(bytes([SIGNATURE[place] ^ 1]))


@pytest.mark.parametrize(
    ("byte", "least"), [(0x11, 12), (0x12, 12), (0x21, 36), (0x22, 36), (0x31, 216), (0x32, 216)]
)
def test_a_length_below_that_of_the_addresses_is_refused_at_once(byte: int, least: int) -> None:
    assert ProxyDecoder().feed(block(1, byte, b"", length=least)) is None
    with pytest.raises(ProxyHeaderError, match="too few"):
        ProxyDecoder().feed(block(1, byte, b"", length=least - 1))


@pytest.mark.parametrize("command", [0, 1])
def test_a_length_above_the_limit_is_refused_at_once(command: int) -> None:
    assert ProxyDecoder().feed(block(command, 0x11, b"", length=4080)) is None
    with pytest.raises(ProxyHeaderError, match="4097 bytes, its limit is 4096"):
        ProxyDecoder().feed(block(command, 0x11, b"", length=4081))
    assert ProxyDecoder(limit=65551).feed(block(command, 0x11, b"", length=65535)) is None


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (b"\1", "needs 2 bytes more"),
        (b"\1\0\1", "needs 1 bytes more"),
        (tlv(TLVType.UNIQUE_ID, bytes(129)), "UNIQUE_ID"),
        (tlv(TLVType.SSL, b"\1\0\0\0"), "SSL"),
        (tlv(TLVType.SSL, b"\1\0\0\0\0\x21\0\1"), "needs 1 bytes more"),
        (tlv(TLVType.CRC32C, b""), "CRC32C has 4 bytes"),
        (tlv(TLVType.CRC32C, bytes(4)), "CRC32C is not"),
        (tlv(TLVType.CRC32C, bytes(4)) * 2, "one CRC32C"),
    ],
)
def test_tlvs_of_a_wrong_form_are_refused(more: bytes, reason: str) -> None:
    with pytest.raises(ProxyHeaderError, match=reason):
        parse(block(1, 0x11, IPV4 + more))


def test_one_wrong_byte_is_detected_unless_it_takes_the_checksum_away() -> None:
    header = ProxyHeader.build(*TCP4_ENDS, tlvs=[(TLVType.ALPN, b"h2")])
    data = encode(header, checksum=True)
    taken = {
        (place, byte)
        for place, right in enumerate(data)
        for byte in set(range(256)) - {right}
        if is_taken(data[:place] + bytes([byte]) + data[place + 1 :])
    }
    command, transport, length, kind = 12, 13, 15, len(data) - 7
    expected = {(command, 0x20), (transport, 0x00)}  # LOCAL and UNSPEC have nothing to protect
    expected |= {(length, 12), (length, 17)}  # the header ends before its checksum
    expected |= {(kind - 3, 2 + 7)}  # ALPN extends over it
    expected |= {(kind, byte) for byte in range(256) if byte not in (TLVType.CRC32C, TLVType.SSL)}
    assert taken == expected


def is_taken(data: bytes) -> bool:
    try:
        return ProxyDecoder().feed(data) is not None
    except ProxyHeaderError:
        return False


@given(relayed, st.data())
def test_a_wrong_byte_in_an_address_or_a_value_is_detected(
    header: ProxyHeader, draw: st.DataObject
) -> None:
    data = bytearray(encode(header, checksum=True))
    place = draw.draw(st.sampled_from(places(header)))
    data[place] ^= draw.draw(st.integers(1, 255))
    with pytest.raises(ProxyHeaderError):
        parse(data)


def places(header: ProxyHeader) -> list[int]:
    """The offsets of addresses, values and the checksum in a header; not those of types and lengths."""
    start = 16 + header.transport.address_length
    found = list(range(16, start))
    for size in [*(len(value) for _, value in header.tlvs), 4]:
        found += range(start + 3, start + 3 + size)
        start += 3 + size
    return found


@pytest.mark.parametrize("align", [1, 2, 3, 4, 8, 16, 64, 536])
@pytest.mark.parametrize("size", range(9))
def test_padding_makes_a_multiple(align: int, size: int) -> None:
    header = ProxyHeader.build(*TCP4_ENDS, tlvs=[(0xE0, bytes(size))])
    data = encode(header, checksum=True, align=align)
    assert len(data) % align == 0
    assert len(data) - len(encode(header, checksum=True)) < align + 3
    kept = [vector for vector in parse(data)[0].tlvs if vector[0] > TLVType.NOOP]
    assert kept == [(0xE0, bytes(size))]


@pytest.mark.parametrize("align", [0, -1])
def test_padding_to_nothing_is_refused(align: int) -> None:
    with pytest.raises(ProxyHeaderError, match="cannot be aligned"):
        encode(ProxyHeader.build(), align=align)


def test_a_checksum_among_the_tlvs_is_recomputed() -> None:
    header = ProxyHeader.build(*TCP4_ENDS, tlvs=[(TLVType.CRC32C, b"1234"), (0xE0, b"x")])
    data = encode(header)
    assert encode(header, checksum=True) == data
    assert parse(data)[0].tlvs[0] != (TLVType.CRC32C, b"1234")


def test_local_is_written_without_addresses() -> None:
    assert encode(ProxyHeader.build(local=True)) == block(0, 0x00, b"")


def test_what_is_too_long_for_the_length_field_is_refused() -> None:
    longest = ProxyHeader.build(*TCP4_ENDS, tlvs=[(0xE0, bytes(65520))])
    assert parse(encode(longest), limit=65551)[0] == longest
    with pytest.raises(ProxyHeaderError, match="65542 bytes"):
        encode(longest, checksum=True)
