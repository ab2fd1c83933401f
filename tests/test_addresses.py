"""Addresses: every form can be read and written; an error shows the accepted forms."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everserve.addresses import Address
from everserve.errors import AddressError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp://127.0.0.1:9999", Address("tcp", host="127.0.0.1", port=9999)),
        ("tcp://[::1]:0", Address("tcp", host="::1")),
        ("tcp://[fe80::1%lo]:7", Address("tcp", host="fe80::1%lo", port=7)),
        ("tcp://*:80", Address("tcp", port=80)),
        ("udp://localhost:53", Address("udp", host="localhost", port=53)),
        (
            "udp://239.1.2.3:5000?interface=eth0",
            Address("udp", host="239.1.2.3", port=5000, interface="eth0"),
        ),
        (
            "udp://[ff02::1%eth0]:5000?interface=eth0",
            Address("udp", host="ff02::1%eth0", port=5000, interface="eth0"),
        ),
        ("unix:/run/a.sock", Address("unix", path="/run/a.sock")),
        ("unix:relative.sock", Address("unix", path="relative.sock")),
        ("unix:@name", Address("unix", path="\0name")),
        ("unixgram:/run/log", Address("unixgram", path="/run/log")),
        ("fd://3", Address("fd", descriptor=3)),
        ("systemd:web-1.socket", Address("systemd", name="web-1.socket")),
    ],
)
def test_each_form_reads_and_writes_back(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert str(address) == text
    assert Address.parse(address) is address


def test_the_interface_becomes_the_zone_of_a_group_of_ipv6() -> None:
    address = Address.parse("udp://[ff02::1]:5000?interface=eth0")
    assert address.server_address == ("ff02::1%eth0", 5000)
    assert address.is_group
    assert not Address.parse("udp://[::1]:5000").is_group
    assert not Address.parse("tcp://239.1.2.3:5000").is_group


def test_a_path_may_follow_two_slashes() -> None:
    assert str(Address.parse("unix:///run/a.sock")) == "unix:/run/a.sock"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "known forms"),
        ("127.0.0.1:80", "known forms"),
        ("http://127.0.0.1:80", "known forms"),
        ("tcp:127.0.0.1:80", "known forms"),
        ("tcp://127.0.0.1", "no port"),
        ("tcp://127.0.0.1:http", "no port"),
        ("tcp://127.0.0.1:-1", "no port"),
        ("tcp://127.0.0.1:65536", "at most 65535"),
        ("tcp://:80", "no host"),
        ("tcp://a b:80", "no host"),
        ("tcp://::1:80", "brackets"),
        ("tcp://[::zz]:80", "::zz"),
        ("udp://127.0.0.1:5000?interface=lo", "127.0.0.1 is no multicast group"),
        ("udp://*:5000?interface=lo", "no multicast group"),
        ("udp://239.1.2.3:5000?interface=", "interface=NAME"),
        ("udp://239.1.2.3:5000?ttl=3", "interface=NAME"),
        ("udp://239.1.2.3?interface=lo", "no port"),
        ("tcp://239.1.2.3:5000?interface=lo", "no port"),
        ("unix:", "known forms"),
        ("unix:/run/a\0b", "NUL"),
        ("unix:@", "known forms"),
        ("fd://x", "known forms"),
        ("systemd:", "known forms"),
        ("systemd:a:b", "known forms"),
        ("fd://²", "known forms"),
    ],
)
def test_an_error_explains_why_and_shows_the_accepted_forms(text: str, reason: str) -> None:
    with pytest.raises(AddressError, match=r"write for example tcp://|did you mean ") as caught:
        Address.parse(text)
    assert repr(text) in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("0.0.0.0:8000", "tcp://0.0.0.0:8000"),
        ("localhost:8000", "tcp://localhost:8000"),
        (":8000", "tcp://*:8000"),
        ("*:8000", "tcp://*:8000"),
        ("8000", "tcp://127.0.0.1:8000"),
        ("[::1]:8000", "tcp://[::1]:8000"),
        ("::1:8000", "tcp://[::1]:8000"),
        ("tcp:127.0.0.1:80", "tcp://127.0.0.1:80"),
        ("TCP://127.0.0.1:80", "tcp://127.0.0.1:80"),
        ("tcp://127.0.0.1:80/", "tcp://127.0.0.1:80"),
        ("tcp://:80", "tcp://*:80"),
        ("udp://::1:53", "udp://[::1]:53"),
        ("http://127.0.0.1:80/path", "tcp://127.0.0.1:80"),
        ("https://*:443", "tls://*:443"),
        ("/run/my.sock", "unix:/run/my.sock"),
        ("./my.sock", "unix:./my.sock"),
        ("@name", "unix:@name"),
    ],
)
def test_what_was_probably_meant(text: str, meant: str) -> None:
    with pytest.raises(AddressError) as caught:
        Address.parse(text)
    assert str(caught.value).endswith(f"; did you mean {meant!r}?")
    Address.parse(meant)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (("127.0.0.1", 9999), "write 'tcp://127.0.0.1:9999'"),
        (("::1", 9999), "write 'tcp://[::1]:9999'"),
        (("", 9999, 0, 0), "write 'tcp://*:9999'"),
        (["tcp://*:1", "tcp://*:2"], "give each address as an argument of its own"),
        (Path("/run/my.sock"), "write 'unix:/run/my.sock'"),
        (9999, "write 'tcp://127.0.0.1:9999'"),
        (dict, "the handler comes first"),
        (None, "an address is a text, for example tcp://"),
        (b"tcp://*:1", "an address is a text, for example tcp://"),
    ],
)
def test_what_is_no_text(value: Any, words: str) -> None:
    with pytest.raises(AddressError) as caught:
        Address.parse(value)
    assert str(caught.value).startswith(f"{value!r} is no address: ")
    assert words in str(caught.value)


@given(st.text(max_size=30))
def test_garbage_raises_nothing_else(text: str) -> None:
    try:
        address = Address.parse(text)
    except AddressError:
        return
    assert Address.parse(str(address)) == address


def test_the_address_of_a_bound_socket() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        assert str(Address.of(sock)) == f"tcp://127.0.0.1:{sock.getsockname()[1]}"
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("", 0))
        assert str(Address.of(sock)) == f"udp://*:{sock.getsockname()[1]}"
    with socket.socket(socket.AF_UNIX) as sock:
        name = f"\0everserve-{os.getpid()}"
        sock.bind(name)
        assert Address.of(sock) == Address("unix", path=name)


def test_the_server_address_is_the_standard_librarys() -> None:
    assert Address.parse("tcp://*:80").server_address == ("", 80)
    assert Address.parse("unix:@name").server_address == "\0name"
