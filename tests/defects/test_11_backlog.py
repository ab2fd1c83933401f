"""Issue 2, 2.11: the backlog is the system's."""

from __future__ import annotations

import socket
import struct
import sys
from pathlib import Path
from types import ModuleType

import pytest

ADDRESS = ("127.0.0.1", 0)


@pytest.mark.repaired_in(3, 15)
def test_the_default_is_the_systems(socketserver_module: ModuleType) -> None:
    assert socketserver_module.TCPServer.request_queue_size == socket.SOMAXCONN


@pytest.mark.repaired_in(3, 15)
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the backlog")
def test_the_kernel_has_it(socketserver_module: ModuleType, Echo: type) -> None:
    with socketserver_module.TCPServer(ADDRESS, Echo) as server:
        information = server.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    (backlog,) = struct.unpack_from("I", information, 28)  # tcpi_sacked, of a listener
    largest = int(Path("/proc/sys/net/core/somaxconn").read_text())
    assert backlog == min(socket.SOMAXCONN, largest)


@pytest.mark.documented
def test_a_class_may_set_another(socketserver_module: ModuleType, Echo: type) -> None:
    class Server(socketserver_module.TCPServer):
        request_queue_size = 3

    with Server(ADDRESS, Echo) as server:
        assert server.request_queue_size == 3


@pytest.mark.documented
def test_address_reuse_keeps_its_default(socketserver_module: ModuleType) -> None:
    assert socketserver_module.TCPServer.allow_reuse_address is False
    assert socketserver_module.UDPServer.allow_reuse_address is False
