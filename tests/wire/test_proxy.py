"""ProxyDecoder, parse and encode: properties of all headers and of all garbage."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.wire.headers import AMAZON, SIGNATURE, TCP4_LINE, block, headers

from everserve.errors import ProxyHeaderError
from everserve.wire import proxy
from everserve.wire.proxy import ProxyDecoder, ProxyHeader, Version, encode, parse

LOCAL = encode(ProxyHeader.build(local=True))
WHOLE = {
    "a line": TCP4_LINE,
    "UNKNOWN": b"PROXY UNKNOWN any\rthing\r\n",
    "IPv6": b"PROXY TCP6 ::ffff:1.2.3.4 2001:db8:1:2:3:4:5:6 1 65535\r\n",
    "a block": AMAZON,
    "LOCAL": LOCAL,
}
whole = pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)

spoilt = st.builds(
    lambda header, place, byte: _spoil(encode(header), place, byte),
    headers,
    st.integers(0, 10_000),
    st.integers(0, 255),
)
garbage = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=120).map(b"PROXY ".__add__),
    st.text("0123456789abcdef.: \r\n", max_size=110).map(
        lambda rest: b"PROXY TCP" + rest.encode() + b"\r\n"
    ),
    st.builds(block, st.integers(0, 2), st.integers(0, 0x33), st.binary(max_size=300)),
    spoilt,
    st.builds(
        lambda word, kept, rest: word[:kept] + rest + b"\r\n",
        st.sampled_from([b"PROXY UNKNOWN", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2"]),
        st.integers(0, 40),
        st.binary(max_size=3) | st.text(" \r\nN0", max_size=3).map(str.encode),
    ),
)


def _spoil(data: bytes, place: int, byte: int) -> bytes:
    place %= len(data)
    return data[:place] + bytes([byte]) + data[place + 1 :]


def outcome(pieces: list[bytes], decoder: ProxyDecoder) -> tuple[object, int]:
    """The decoder's result for all pieces: a header, ``None`` or the error; and the bytes taken."""
    header = None
    for piece in pieces:
        try:
            header = decoder.feed(piece)
        except ProxyHeaderError:
            return ProxyHeaderError, decoder.consumed
    return header, decoder.consumed


@given(headers, st.binary(max_size=20))
def test_an_encoded_header_decodes_to_an_equal_one(header: ProxyHeader, surplus: bytes) -> None:
    data = encode(header)
    assert parse(data + surplus, version=header.version) == (header, len(data))


@given(headers)
def test_a_checksum_and_padding_come_after_the_other_tlvs(header: ProxyHeader) -> None:
    if header.version == 2 and header.transport.family:
        read, length = parse(encode(header, checksum=True, align=8))
        assert length % 8 == 0
        assert read.has_checksum
        assert read.tlvs[: len(header.tlvs)] == header.tlvs


@pytest.mark.parametrize("cut", range(len(b"PROXY UNKNOWN") + 1))
@pytest.mark.parametrize("rest", [b"", b"\r", b" ", b" \r"])
def test_an_unknown_line_is_the_same_whole_and_in_pieces(cut: int, rest: bytes) -> None:
    data = b"PROXY UNKNOWN"[:cut] + rest + b"\r\n"
    whole = outcome([data], ProxyDecoder())
    assert outcome([bytes([byte]) for byte in data], ProxyDecoder()) == whole


@given(st.one_of(garbage, headers.map(encode)), st.binary(max_size=20), st.data())
def test_any_split_gives_the_same_result(data: bytes, surplus: bytes, draw: st.DataObject) -> None:
    data += surplus
    cuts = sorted(draw.draw(st.sets(st.integers(0, len(data)), max_size=10)))
    edges = zip([0, *cuts], [*cuts, len(data)], strict=True)
    pieces = [data[start:end] for start, end in edges]
    whole = outcome([data], ProxyDecoder())
    assert outcome(pieces, ProxyDecoder()) == whole
    assert outcome([bytes([byte]) for byte in data], ProxyDecoder()) == whole


@example(b"P\0", 1)
@example(SIGNATURE, 2)
@given(garbage, st.sampled_from([None, 1, 2]))
def test_garbage_raises_only_proxy_header_error(data: bytes, version: Version | None) -> None:
    decoder = ProxyDecoder(version=version)
    try:
        header = decoder.feed(data)
    except ProxyHeaderError:
        assert decoder.consumed == decoder.needed == 0
        return
    assert (header is None) == (decoder.consumed == 0)
    assert (header is None) == (decoder.needed > 0)
    assert len(encode(header)) if header else True


@whole
def test_an_incomplete_header_is_waited_for(data: bytes) -> None:
    decoder = ProxyDecoder()
    for byte in data[:-1]:
        assert decoder.feed(bytes([byte])) is None
        assert decoder.consumed == 0
    assert decoder.feed(data[-1:]) == parse(data)[0]
    assert decoder.consumed == len(data)


@whole
def test_a_datagram_with_an_incomplete_header_is_refused(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(ProxyHeaderError, match="incomplete"):
            parse(data[:length])


@given(headers, st.booleans())
def test_a_reader_of_needed_bytes_reads_none_of_the_next_protocol(
    header: ProxyHeader, is_known: bool
) -> None:
    data = encode(header)
    decoder = ProxyDecoder(version=header.version if is_known else None)
    read, turns = 0, 0
    while decoder.needed:
        piece = data[read : read + decoder.needed]
        assert len(piece) == decoder.needed
        read, turns = read + len(piece), turns + 1
        decoder.feed(piece)
    assert decoder.consumed == read == len(data)
    assert turns <= (3 if header.version == 2 else 36)


@pytest.mark.parametrize(
    ("version", "data", "first_wrong"),
    [
        (None, b"GET / HTTP/1.1\r\n", 0),
        (None, b"\x16\x03\x01\x02\x00\x01", 0),  # a ClientHello
        (None, b"\0", 0),
        (None, b"\n", 0),
        (None, b"PUT / HTTP/1.1\r\n", 1),
        (None, b"\r\nGET", 2),
        (1, SIGNATURE, 0),
        (2, TCP4_LINE, 0),
        (2, b"GET", 0),
    ],
)
def test_another_protocol_is_refused_at_its_first_byte_that_differs(
    version: Version | None, data: bytes, first_wrong: int
) -> None:
    decoder = ProxyDecoder(version=version)
    assert decoder.feed(data[:first_wrong]) is None
    with pytest.raises(ProxyHeaderError):
        decoder.feed(data[first_wrong : first_wrong + 1])
    with pytest.raises(ProxyHeaderError):
        decoder.feed(TCP4_LINE)
    with pytest.raises(ProxyHeaderError):
        parse(data, version=version)


def test_the_refusal_shows_the_bytes_and_what_to_do() -> None:
    with pytest.raises(ProxyHeaderError, match=r"of version 2 begins with b'GET / .* proxy that"):
        ProxyDecoder(version=2).feed(b"GET / HTTP/1.1\r\n")


def test_the_surplus_belongs_to_the_caller() -> None:
    decoder = ProxyDecoder()
    data = TCP4_LINE + b"GET / HTTP/1.1\r\n"
    header = decoder.feed(memoryview(data))
    assert header is not None
    assert data[decoder.consumed :] == b"GET / HTTP/1.1\r\n"
    assert decoder.feed(b"PROXY UNKNOWN\r\n") is header
    assert decoder.consumed == len(TCP4_LINE)


@pytest.mark.parametrize(
    ("version", "needed"), [(None, 15), (1, 15), (2, 16)], ids=["any", "one", "two"]
)
def test_at_first_the_shortest_header_is_needed(version: Version | None, needed: int) -> None:
    decoder = ProxyDecoder(version=version)
    assert decoder.feed(b"") is None
    assert decoder.needed == needed


def test_the_limit_holds_for_both_versions() -> None:
    assert parse(TCP4_LINE, limit=len(TCP4_LINE))[1] == len(TCP4_LINE)
    assert parse(AMAZON, limit=len(AMAZON))[1] == len(AMAZON)
    for data in (TCP4_LINE, AMAZON):
        with pytest.raises(ProxyHeaderError, match=str(len(data) - 1)):
            parse(data, limit=len(data) - 1)


def test_a_version_that_does_not_exist_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no version 3"):
        ProxyDecoder(version=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no version 0"):
        parse(b"", version=0)  # type: ignore[arg-type]


def test_every_public_name_is_there() -> None:
    assert all(hasattr(proxy, name) for name in proxy.__all__)
