"""ProxyHeader: its values are properties, and values that a header cannot hold are refused."""

from typing import Any

import pytest

from everserve.errors import EverserveError, ProxyHeaderError
from everserve.wire.proxy import Command, ProxyHeader, SSLInfo, TLVType, Transport

V4 = ("192.0.2.1", 1)
V6 = ("2001:db8::1", 1, 0, 0)


def test_the_registered_tlvs_are_properties() -> None:
    header = ProxyHeader.build(
        V4,
        V4,
        tlvs=[
            (TLVType.ALPN, b"h2"),
            (TLVType.AUTHORITY, b"example.com"),
            (TLVType.CRC32C, bytes(4)),
            (TLVType.UNIQUE_ID, b"\0id"),
            (TLVType.SSL, SSLInfo(verify=7).encode()),
            (TLVType.NETNS, b"blue"),
            (0xE0, b"own"),
        ],
    )
    assert header.alpn == b"h2"
    assert header.authority == "example.com"
    assert header.has_checksum
    assert header.unique_id == b"\0id"
    assert header.ssl == SSLInfo(verify=7)
    assert header.namespace == "blue"
    assert header.tlv(0xE0) == b"own"
    assert len(header.tlvs) == 7


def test_missing_values_are_none() -> None:
    header = ProxyHeader.build(V4, V4)
    values = (header.alpn, header.authority, header.unique_id, header.ssl, header.namespace)
    assert values == (None,) * 5
    assert not header.has_checksum


@pytest.mark.parametrize(
    ("header", "has_addresses"),
    [
        (ProxyHeader.build(V4, V4), True),
        (ProxyHeader.build("", ""), True),
        (ProxyHeader.build(), False),
        (ProxyHeader.build(version=1), False),
        (ProxyHeader.build(local=True), False),
    ],
)
def test_has_addresses(header: ProxyHeader, has_addresses: bool) -> None:
    assert header.has_addresses is has_addresses


def test_an_ipv6_address_may_be_given_short_and_unequal() -> None:
    header = ProxyHeader.build(("2001:DB8::1", 1), ("fe80::1", 2, 5, 6), version=1)
    assert header == ProxyHeader(
        1, Command.PROXY, Transport.TCP6, ("2001:db8::1", 1, 0, 0), ("fe80::1", 2, 0, 0)
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"version": 3}, "no version 3"),
        ({"version": 1, "local": True}, "need version 2"),
        ({"version": 1, "tlvs": [(1, b"h2")]}, "need version 2"),
        ({"version": 1, "source": V4, "destination": V4, "datagram": True}, "UDP4"),
        ({"version": 1, "source": "/a", "destination": "/b"}, "UNIX_STREAM"),
        ({"local": True, "source": V4, "destination": V4}, "LOCAL"),
        ({"local": True, "tlvs": [(1, b"h2")]}, "LOCAL"),
        ({"source": V4, "destination": V6}, "two families"),
        ({"source": V4}, "two families"),
        ({"tlvs": [(TLVType.UNIQUE_ID, bytes(129))]}, "UNIQUE_ID"),
        ({"tlvs": [(TLVType.SSL, b"")]}, "SSL"),
    ],
)
def test_values_that_a_header_cannot_hold_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ProxyHeaderError, match=reason):
        ProxyHeader.build(**options)


def test_the_constructor_requires_addresses_if_the_transport_has_them() -> None:
    with pytest.raises(ProxyHeaderError, match="TCP4 has both addresses"):
        ProxyHeader(2, Command.PROXY, Transport.TCP4, V4)
    with pytest.raises(ProxyHeaderError, match="UNSPEC has no addresses"):
        ProxyHeader(2, Command.LOCAL, Transport.UNSPEC, V4, V4)


def test_the_error_is_one_of_the_tree_and_a_value_error() -> None:
    assert issubclass(ProxyHeaderError, EverserveError)
    assert issubclass(ProxyHeaderError, ValueError)
