"""Endpoints: each shape of an address is packed, and unpacked as getpeername returns it."""

import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from everserve.errors import ProxyHeaderError
from everserve.wire.endpoints import Address, Transport, ipv6_text, pack, transport_of, unpack


@pytest.mark.parametrize(
    ("transport", "given", "read"),
    [
        (Transport.TCP4, ("192.0.2.1", 80), ("192.0.2.1", 80)),
        (Transport.UDP4, ("0.0.0.0", 0), ("0.0.0.0", 0)),
        (Transport.TCP6, ("2001:DB8:0::1", 65535), ("2001:db8::1", 65535, 0, 0)),
        (Transport.UDP6, ("fe80::1%lo", 53, 7, 3), ("fe80::1", 53, 0, 0)),
        (Transport.TCP6, ("::ffff:192.0.2.1", 1), ("::ffff:192.0.2.1", 1, 0, 0)),
        (Transport.UNIX_STREAM, "/run/a.sock", "/run/a.sock"),
        (Transport.UNIX_STREAM, b"/run/a.sock", "/run/a.sock"),
        (Transport.UNIX_STREAM, "/run/ä\udcff", "/run/ä\udcff"),
        (Transport.UNIX_DGRAM, "/" + "a" * 107, "/" + "a" * 107),
        (Transport.UNIX_DGRAM, "", ""),
        (Transport.UNIX_STREAM, b"\0name\0d", b"\0name\0d"),
        (Transport.UNIX_STREAM, "\0name", b"\0name"),
    ],
)
def test_each_shape_is_packed_and_unpacked(
    transport: Transport, given: Address, read: Address
) -> None:
    block = pack(transport, given, given)
    assert len(block) == transport.address_length
    assert unpack(transport, block) == (read, read)


def test_the_order_is_source_destination_source_port_destination_port() -> None:
    block = pack(Transport.TCP4, ("1.2.3.4", 0x0506), ("7.8.9.10", 0x0B0C))
    assert block == bytes([1, 2, 3, 4, 7, 8, 9, 10, 5, 6, 11, 12])


def test_a_path_ends_before_its_first_nul() -> None:
    room = b"/a\0rubbish".ljust(108, b"\0")
    assert unpack(Transport.UNIX_STREAM, room + bytes(108)) == ("/a", "")


@pytest.mark.parametrize(
    ("transport", "address", "reason"),
    [
        (Transport.TCP4, ("::1", 80, 0, 0), "not a host of a TCP4"),
        (Transport.TCP6, ("192.0.2.1", 80), "not a host of a TCP6"),
        (Transport.TCP4, ("localhost", 80), "localhost"),
        (Transport.TCP4, (16909060, 80), "not a host"),
        (Transport.TCP4, ("192.0.2.1", 65536), "not a port"),
        (Transport.UDP4, ("192.0.2.1", -1), "not a port"),
        (Transport.UDP4, ("192.0.2.1", "80"), "not a port"),
        (Transport.TCP4, "/run/a.sock", "give \\(host, port\\)"),
        (Transport.TCP4, None, "give \\(host, port\\)"),
        (Transport.UNIX_STREAM, ("192.0.2.1", 80), "not the path"),
        (Transport.UNIX_STREAM, "\ud800", "not the path"),
        (Transport.UNIX_STREAM, "/a\0b", "NUL"),
        (Transport.UNIX_STREAM, "a" * 109, "109 bytes"),
    ],
)
def test_what_does_not_fit_is_refused(transport: Transport, address: Address, reason: str) -> None:
    with pytest.raises(ProxyHeaderError, match=reason):
        pack(transport, address, address)


@example(bytes(16))
@example(bytes(15) + b"\1")
@example(bytes(13) + b"\1\2\3")
@example(bytes(12) + b"\1\2\3\4")
@example(bytes(10) + b"\xff\xff\1\2\3\4")
@given(st.binary(min_size=16, max_size=16))
def test_ipv6_is_written_as_the_system_writes_it(packed: bytes) -> None:
    assert ipv6_text(packed) == socket.inet_ntop(socket.AF_INET6, packed)


@pytest.mark.parametrize(
    ("end", "stream", "datagram"),
    [
        (("192.0.2.1", 1), Transport.TCP4, Transport.UDP4),
        (("::1", 1, 0, 0), Transport.TCP6, Transport.UDP6),
        ("/a", Transport.UNIX_STREAM, Transport.UNIX_DGRAM),
        (b"\0a", Transport.UNIX_STREAM, Transport.UNIX_DGRAM),
        (None, Transport.UNSPEC, Transport.UNSPEC),
    ],
)
def test_two_addresses_determine_their_transport(
    end: Address | None, stream: Transport, datagram: Transport
) -> None:
    assert transport_of(end, end, datagram=False) is stream
    assert transport_of(end, end, datagram=True) is datagram


@pytest.mark.parametrize("other", [("::1", 1, 0, 0), "/a", None])
def test_two_families_have_no_transport(other: Address | None) -> None:
    with pytest.raises(ProxyHeaderError, match="two families"):
        transport_of(("192.0.2.1", 1), other, datagram=False)
