"""``admission.access``: networks that may connect, and networks that may not."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everserve.admission.access import AccessRules, Networks, host_of
from everserve.errors import OptionError

V4 = ("192.0.2.7", 4711)
V6 = ("2001:db8::7", 4711, 0, 0)
MAPPED = ("::ffff:192.0.2.7", 4711, 0, 0)


@pytest.mark.parametrize(
    ("address", "host"),
    [
        (V4, b"\xc0\0\2\7"),
        (MAPPED, b"\xc0\0\2\7"),
        (("::1", 1, 0, 0), bytes(15) + b"\1"),
        (("fe80::1%eth0", 1, 0, 2), b"\xfe\x80" + bytes(13) + b"\1"),
        ("/run/socket", None),
        (b"\0abstract", None),
        ("", None),
        (None, None),
        ((), None),
        ((None, 1), None),
        (("no address", 1), None),
        (("no:address", 1), None),
    ],
)
def test_host_of(address: Any, host: bytes | None) -> None:
    assert host_of(address) == host


def test_networks() -> None:
    networks = Networks(["10.0.0.0/8", "192.0.2.7", " 2001:db8::/32 ", "::1"])
    for inside in ("10.0.0.0", "10.255.255.255", "192.0.2.7", "2001:db8:ffff::", "::1"):
        assert host_of((inside, 1)) in networks, inside
    for outside in ("11.0.0.0", "192.0.2.8", "2001:db9::", "::2", "::"):
        assert host_of((outside, 1)) not in networks, outside
    assert None not in networks
    assert networks
    assert not Networks()


def test_the_two_families_are_separate() -> None:
    assert host_of(V4) not in Networks(["::/0"])
    assert host_of(V6) not in Networks(["0.0.0.0/0"])


def test_a_mapped_network_is_the_one_it_maps() -> None:
    assert host_of(MAPPED) in Networks(["::ffff:192.0.2.0/120"])


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "10.0.0.0/33", "host.example", "10.0.0.0/8/8"])
def test_a_text_that_is_not_a_network(text: str) -> None:
    with pytest.raises(OptionError, match=r"not a network: .* write 10\.0\.0\.0/8 or ::1"):
        Networks([text])


addresses = st.ip_addresses()
networks = st.builds(
    lambda address, bits: ipaddress.ip_network(
        (address, min(bits, address.max_prefixlen)), strict=False
    ),
    addresses,
    st.integers(0, 128),
).filter(lambda network: not str(network).startswith("::ffff"))


@given(st.lists(networks, max_size=5), addresses)
def test_it_agrees_with_ipaddress(found: list[Any], address: Any) -> None:
    address = getattr(address, "ipv4_mapped", None) or address
    inside = any(address in network for network in found)
    assert (host_of((str(address), 1)) in Networks(map(str, found))) is inside


def test_every_peer_may_connect_without_rules() -> None:
    access = AccessRules()
    assert all(access.permits(address) for address in (V4, V6, MAPPED, "/path", "", None))


def test_allow_and_deny() -> None:
    access = AccessRules(allow=["192.0.2.0/24", "2001:db8::/32"], deny=["192.0.2.7"])
    assert access.permits(("192.0.2.8", 1))
    assert access.permits(V6)
    assert not access.permits(V4)
    assert not access.permits(MAPPED)
    assert not access.permits(("198.51.100.1", 1))


def test_deny_alone_permits_the_others() -> None:
    access = AccessRules(deny=["192.0.2.0/24"])
    assert access.permits(("198.51.100.1", 1))
    assert not access.permits(V4)


def test_an_empty_list_allows_no_peer() -> None:
    access = AccessRules(allow=[])
    assert not any(access.permits(address) for address in (V4, V6, MAPPED, "/path", "", None))
    assert repr(access) == "<AccessRules allow no peer>"


@pytest.mark.parametrize("rules", [{"allow": ["0.0.0.0/0", "::/0"]}, {"deny": ["192.0.2.0/24"]}])
@pytest.mark.parametrize("address", ["/path", "", b"\0name", None, ("a.example", 1), (), ("", 1)])
def test_where_there_are_rules_an_address_without_a_network_is_denied(
    rules: dict[str, list[str]], address: Any
) -> None:
    assert not AccessRules(**rules).permits(address)


def test_parse() -> None:
    access = AccessRules.parse("allow 192.0.2.0/24 , deny 192.0.2.7,allow ::1")
    assert repr(access) == "<AccessRules allow 192.0.2.0/24, allow ::1, deny 192.0.2.7>"
    assert AccessRules.parse(access) is access
    assert repr(AccessRules()) == "<AccessRules every peer>"


@pytest.mark.parametrize(
    "text", ["", "10.0.0.0/8", "allow", "forbid 10.0.0.0/8", "allow 10/8/8", "deny x"]
)
def test_parse_refuses_other_texts(text: str) -> None:
    with pytest.raises(OptionError):
        AccessRules.parse(text)


def test_networks_may_be_objects_or_one_text() -> None:
    for allow in (
        "10.0.0.0/8,::1",
        [ipaddress.ip_network("10.0.0.0/8"), "::1"],
        Networks(["10.0.0.0/8"]),
    ):
        access = AccessRules(allow=allow)
        assert access.permits(("10.1.2.3", 1))
        assert not access.permits(("192.0.2.1", 1))
