"""Values for the tests of headers, in all shapes and sizes that a header may have."""

from __future__ import annotations

import ipaddress

from hypothesis import strategies as st

from everserve.wire.proxy import ProxyHeader, SSLClient, SSLInfo, TLVType

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

TCP4_LINE = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"  # the example of section 2.1
TCP4_ENDS = (("192.168.0.1", 56324), ("192.168.0.11", 443))

# A header of Amazon's Network Load Balancer, from the manual of its Proxy protocol v2.
AMAZON = bytes.fromhex(
    "0d0a0d0a000d0a515549540a 21 11 0054 ac1f0771 ac1f0a1f c8f2 0050 030004 e8d6892d"
    "ea0017 01 767063652d3038643262663135666163353030316339 040024"
) + bytes(36)


def block(command: int, transport: int, rest: bytes, length: int | None = None) -> bytes:
    """A header of version 2 made from its parts."""
    size = len(rest) if length is None else length
    return SIGNATURE + bytes([0x20 | command, transport]) + size.to_bytes(2, "big") + rest


def tlv(kind: int, value: bytes) -> bytes:
    """The bytes of one vector."""
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


ports = st.integers(0, 65535)
ipv4 = st.tuples(st.ip_addresses(v=4).map(str), ports)
ipv6 = st.tuples(
    st.one_of(
        st.ip_addresses(v=6),
        st.integers(0, 2**32 - 1).map(ipaddress.IPv6Address),
        st.integers(0xFFFF << 32, (0x10000 << 32) - 1).map(ipaddress.IPv6Address),
    ).map(str),
    ports,
)
paths = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=27)
abstract = st.binary(max_size=106).map(lambda name: b"\0" + name + b"\1")
ends = st.one_of(*(st.tuples(one, one) for one in (ipv4, ipv6, st.one_of(paths, abstract))))

plain = st.tuples(
    st.sampled_from([TLVType.ALPN, TLVType.NOOP, TLVType.UNIQUE_ID, 0x7F, 0xE0, 0xEF, 0xF0, 0xFF]),
    st.binary(max_size=128),
)
names = st.text(max_size=40).map(str.encode)
words = st.text(st.characters(codec="ascii"), max_size=40).map(str.encode)
ssl_parts = st.one_of(
    st.tuples(st.just(TLVType.SSL_CN), names),
    st.tuples(st.sampled_from([TLVType.SSL_VERSION, TLVType.SSL_GROUP]), words),
    st.tuples(st.just(TLVType.SSL_CLIENT_CERT), st.binary(max_size=200)),
)
ssl = st.builds(
    SSLInfo,
    st.integers(0, 255).map(SSLClient),
    st.integers(0, 2**32 - 1),
    st.lists(ssl_parts, max_size=4).map(tuple),
)
tlvs = st.lists(
    st.one_of(
        plain,
        st.tuples(st.just(TLVType.AUTHORITY), names),
        st.tuples(st.just(TLVType.NETNS), words),
        st.tuples(st.just(TLVType.SSL), ssl.map(SSLInfo.encode)),
    ),
    max_size=5,
)

lines = st.one_of(
    st.just(ProxyHeader.build(version=1)),
    *(
        st.tuples(one, one).map(lambda pair: ProxyHeader.build(*pair, version=1))
        for one in (ipv4, ipv6)
    ),
)
relayed = st.builds(
    lambda pair, datagram, more: ProxyHeader.build(*pair, datagram=datagram, tlvs=more),
    ends,
    st.booleans(),
    tlvs,
)
unspecified = tlvs.map(lambda more: ProxyHeader.build(tlvs=more))
headers = st.one_of(lines, relayed, unspecified, st.just(ProxyHeader.build(local=True)))
"""Headers of both versions, of every transport, with and without TLVs."""
