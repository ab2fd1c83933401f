"""Version 1: lines of the specification, and lines that differ from it slightly."""

import ipaddress

import pytest
from tests.wire.headers import TCP4_ENDS, TCP4_LINE

from everserve.errors import ProxyHeaderError
from everserve.wire.proxy import ProxyDecoder, ProxyHeader, encode, parse

ALL_ONES = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
TCP4 = b"PROXY TCP4 "
TCP6 = b"PROXY TCP6 "


@pytest.mark.parametrize(
    ("line", "source", "destination"),
    [
        (TCP4_LINE, *TCP4_ENDS),
        (TCP4 + b"0.0.0.0 0.0.0.0 0 0\r\n", ("0.0.0.0", 0), ("0.0.0.0", 0)),
        (
            TCP4 + b"255.255.255.255 255.255.255.255 65535 65535\r\n",
            ("255.255.255.255", 65535),
            ("255.255.255.255", 65535),
        ),
        (
            f"PROXY TCP6 {ALL_ONES} {ALL_ONES.upper()} 65535 65535\r\n".encode(),
            (ALL_ONES, 65535, 0, 0),
            (ALL_ONES, 65535, 0, 0),
        ),
        (TCP6 + b":: 1:: 1 2\r\n", ("::", 1, 0, 0), ("1::", 2, 0, 0)),
        (
            TCP6 + b"2001:0DB8:0:0:0:0:0:1 ::ffff:102:304 1 2\r\n",
            ("2001:db8::1", 1, 0, 0),
            ("::ffff:1.2.3.4", 2, 0, 0),
        ),
        # inet_ntop writes these dots, and HAProxy writes with inet_ntop.
        (
            TCP6 + b"::ffff:1.2.3.4 ::1 1 2\r\n",
            ("::ffff:1.2.3.4", 1, 0, 0),
            ("::1", 2, 0, 0),
        ),
        (b"PROXY UNKNOWN\r\n", None, None),
        (b"PROXY UNKNOWN \r\n", None, None),
        (f"PROXY UNKNOWN {ALL_ONES} {ALL_ONES} 65535 65535\r\n".encode(), None, None),
        (b"PROXY UNKNOWN \xff\0  any\nthing\r at all\r\r\n", None, None),
    ],
)
def test_a_line_is_read(line: bytes, source: object, destination: object) -> None:
    header, length = parse(line + b"\r\nGET / HTTP/1.1\r\n")
    assert (header.version, header.source, header.destination) == (1, source, destination)
    assert length == len(line)


@pytest.mark.parametrize(
    ("line", "length"),
    [
        (TCP4 + b"255.255.255.255 255.255.255.255 65535 65535\r\n", 56),
        (f"PROXY TCP6 {ALL_ONES} {ALL_ONES} 65535 65535\r\n".encode(), 104),
        (b"PROXY UNKNOWN\r\n", 15),
        (f"PROXY UNKNOWN {ALL_ONES} {ALL_ONES} 65535 65535\r\n".encode(), 107),
    ],
)
def test_the_longest_lines_of_the_specification_are_taken(line: bytes, length: int) -> None:
    assert len(line) == length
    assert parse(line)[1] == length
    if b"UNKNOWN" not in line:
        assert encode(parse(line)[0]) == line


def test_a_line_of_108_bytes_is_refused_at_its_106th() -> None:
    decoder = ProxyDecoder()
    assert decoder.feed(b"PROXY UNKNOWN".ljust(105)) is None
    with pytest.raises(ProxyHeaderError, match="CRLF within 107 bytes"):
        decoder.feed(b" ")


def test_the_107th_byte_may_still_end_the_line() -> None:
    decoder = ProxyDecoder()
    assert decoder.feed(b"PROXY UNKNOWN".ljust(105) + b"\r") is None
    assert decoder.feed(b"\n") == ProxyHeader(1)
    assert decoder.consumed == 107


@pytest.mark.parametrize("length", range(len(b"PROXY UNKNOWN")))
def test_a_word_that_is_cut_short_is_refused(length: int) -> None:
    """Also where the CRLF comes in the same piece."""
    for line in (b"PROXY UNKNOWN"[:length], (b"PROXY TCP4 "[:length])):
        with pytest.raises(ProxyHeaderError):
            ProxyDecoder().feed(line + b"\r\n" + b"GET / HTTP/1.1\r\n")


# Each is refused at the last byte shown, and not before.
REFUSED = [
    b"X",
    b"p",
    b"PX",
    b"PO",  # POST
    b"PRI",  # HTTP/2
    b"PROP",  # PROPFIND
    b"PROXY\t",
    b"PROXY\r",
    b"PROXY  ",
    b"PROXY T ",
    b"PROXY t",
    b"PROXY TCP5",
    b"PROXY UD",
    b"PROXY TCP4\r",
    b"PROXY TCP6  ",
    b"PROXY UNKNOWN\n",
    b"PROXY UNKNOWN\rx",
    b"PROXY UNKNOWN\r\r",
    b"PROXY UNKNOWNX",
    TCP4 + b" ",
    TCP4 + b"\r",
    TCP4 + b"\xff",
    TCP4 + b":",
    TCP4 + b"-",
    TCP4 + b"256",
    TCP4 + b"01",
    TCP4 + b"00",
    TCP4 + b"1234",
    TCP4 + b"1..",
    TCP4 + b"1.2.3 ",
    TCP4 + b"1.2.3.4.",
    TCP4 + b"1.2.3.4\r",
    TCP4 + b"1.2.3.4\t",
    TCP4 + b"1.2.3.4/",
    TCP4 + b"1.2.3.4  ",
    TCP4 + b"1.2.3.4 a",
    TCP4 + b"1.2.3.4 5.6.7.8\r",
    TCP4 + b"1.2.3.4 5.6.7.8 -",
    TCP4 + b"1.2.3.4 5.6.7.8 +",
    TCP4 + b"1.2.3.4 5.6.7.8 01",
    TCP4 + b"1.2.3.4 5.6.7.8 00",
    TCP4 + b"1.2.3.4 5.6.7.8 65536",
    TCP4 + b"1.2.3.4 5.6.7.8 100000",
    TCP4 + b"1.2.3.4 5.6.7.8 1_",
    TCP4 + b"1.2.3.4 5.6.7.8  ",
    TCP4 + b"1.2.3.4 5.6.7.8 1\r",
    TCP4 + b"1.2.3.4 5.6.7.8 1 \r",
    TCP4 + b"1.2.3.4 5.6.7.8 1 2 ",
    TCP4 + b"1.2.3.4 5.6.7.8 1 2\n",
    TCP4 + b"1.2.3.4 5.6.7.8 1 2\r\r",
    TCP4 + b"1.2.3.4 5.6.7.8 1 2\rX",
    TCP4 + b"1.2.3.4 5.6.7.8 1 02",
    TCP4 + b"1.2.3.4 5.6.7.8 1 70000",
    TCP6 + b"g",
    TCP6 + b".",
    TCP6 + b"1.",
    TCP6 + b":1",
    TCP6 + b": ",
    TCP6 + b":::",
    TCP6 + b"1::2::",
    TCP6 + b"12345",
    TCP6 + b"1:2:3:4:5:6:7 ",
    TCP6 + b"1:2:3:4:5:6:7:8:",
    TCP6 + b"::1%",
    TCP6 + b"::1/",
    TCP6 + b"[",
    TCP6 + b"::ffff:1.2.3.256",
    TCP6 + b"::ffff:1.2.3 ",
    TCP6 + b"::1 1.",
]


@pytest.mark.parametrize("line", REFUSED)
def test_a_line_is_refused_at_the_first_byte_that_spoils_it(line: bytes) -> None:
    decoder = ProxyDecoder(version=1)
    assert decoder.feed(line[:-1]) is None
    with pytest.raises(ProxyHeaderError):
        decoder.feed(line[-1:])


@pytest.mark.parametrize("line", REFUSED)
def test_a_line_that_arrives_complete_is_refused_too(line: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        parse(line + b" 1\r\n", version=1)
    with pytest.raises(ProxyHeaderError):
        ProxyDecoder().feed(line + b"\r\n")


@pytest.mark.parametrize(
    "line",
    [TCP4 + b"1.2.3.4 5.6.7.8 1\r\n", TCP4 + b"1.2.3.4\r\n", b"PROXY TCP4\r\n", b"PROXY\r\n"],
)
def test_a_line_with_too_few_words_is_refused(line: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        parse(line)


@pytest.mark.parametrize("host", ["::ffff:1.2.3.4", "::1.2.3.4", "::", "1::", "1:0:0:2::3"])
def test_ipv6_is_written_in_digits_and_colons_alone(host: str) -> None:
    line = encode(ProxyHeader.build((host, 1), ("::1", 2), version=1))
    written = line.split(b" ")[2].decode()
    assert "." not in written
    assert ipaddress.ip_address(written) == ipaddress.ip_address(host)
    assert parse(line)[0] == ProxyHeader.build((host, 1), ("::1", 2), version=1)


@pytest.mark.parametrize("options", [{"checksum": True}, {"align": 8}])
def test_version_1_has_no_checksum_and_no_padding(options: dict[str, int]) -> None:
    with pytest.raises(ProxyHeaderError, match="use version 2"):
        encode(ProxyHeader.build(version=1), **options)  # type: ignore[arg-type]
