"""``sockets.receiving``: buffers, broadcasts, groups."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clients import LIMIT

from everserve.sockets.receiving import allow_broadcast, enlarge_buffer, join

GROUP = "239.255.77.1"


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(LIMIT)
        yield sock


def test_a_buffer_that_the_system_gives(sock: socket.socket) -> None:
    assert enlarge_buffer(sock, 40_000) == 40_000
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 80_000


class Restricted(socket.socket):
    """A socket of a process that may not exceed the system's limit."""

    def setsockopt(self, *arguments: object) -> None:  # type: ignore[override]
        if arguments[1] == 33:
            raise PermissionError
        super().setsockopt(*arguments)  # type: ignore[call-overload]


def test_a_buffer_of_which_the_system_gives_less() -> None:
    with Restricted(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with open("/proc/sys/net/core/rmem_max") as limit:
            most = int(limit.read())
        assert enlarge_buffer(sock, 2**40) == most


def test_broadcast(sock: socket.socket) -> None:
    allow_broadcast(sock)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)


@pytest.mark.parametrize("interface", ["lo", "127.0.0.1", "1"])
def test_a_group_on_an_interface(sock: socket.socket, interface: str) -> None:
    sock.bind((GROUP, 0))
    join(sock, GROUP, interface)
    sock.sendto(b"to all", sock.getsockname())  # which leaves on that interface
    assert sock.recv(100) == b"to all"


@pytest.mark.parametrize("group", ["ff02::7777", "ff15::7777"])
@pytest.mark.parametrize("named", ["in the address", "apart"])
def test_a_group_of_ipv6(group: str, named: str) -> None:
    """The loopback interface has no route for groups of IPv6, so that nothing can be sent there."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        if named == "apart":
            join(sock, group, "lo")
        else:
            join(sock, f"{group}%lo", "")
        members = Path("/proc/net/igmp6").read_text().split()
        assert socket.inet_pton(socket.AF_INET6, group).hex() in members
        own = sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF)
        assert own == socket.if_nametoindex("lo")


def test_an_interface_that_there_is_not(sock: socket.socket) -> None:
    with pytest.raises(OSError, match="no network interface is called 'none0'") as caught:
        join(sock, GROUP, "none0")
    assert caught.value.filename == f"{GROUP} on none0"
