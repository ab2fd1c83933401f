"""What a client costs in memory that never completes its first message, by each engine."""

from __future__ import annotations

import resource
import ssl
from pathlib import Path
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.sockets.tls.test_hello import in_records

from everserve.sockets.tls import TLS
from everserve.sockets.tls.hello import LONGEST

CROWD = 300
SENT = 65_536
MOST = 20 * 1024
"""Bytes of memory for each of them."""

BEGINNING = b"\x01" + (LONGEST - 100).to_bytes(3, "big")
ENDLESS = {
    "one record": b"\x16\x03\x01\x20\x00" + BEGINNING + bytes(LONGEST - 200),
    "a hello that does not end": in_records(bytes(5) + BEGINNING + bytes(LONGEST - 200), 1000),
    "records of one byte": in_records(bytes(5) + BEGINNING + bytes(SENT // 6), 1),
    "records of nothing": b"\x16\x03\x01\x00\x00" * (SENT // 5),
    "a long hello": b"\x16\x03\x01\x40\x00\x01\x00\xff\xff" + bytes(SENT),
}


class Peer:
    """A non-blocking socket whose peer has sent `pieces`, and sends no more."""

    def __init__(self, data: bytes) -> None:
        self._pieces = [data[at : at + 1000] for at in range(0, len(data), 1000)]

    def recv(self, _size: int) -> bytes:
        if not self._pieces:
            raise BlockingIOError
        return self._pieces.pop(0)

    def send(self, data: bytes) -> int:
        return len(data)

    def gettimeout(self) -> float:
        return 0.0

    def setsockopt(self, *_arguments: int) -> None:
        pass

    def fileno(self) -> int:
        return -1

    def forget(self) -> None:
        """What a kernel has in its own memory."""
        self._pieces = []


def memory() -> int:
    """Bytes that the process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def half_open(parts: Any, tls: TLS, data: bytes) -> Any:
    """A connection that has received as much of `data` as it takes."""
    inner: Any = Peer(data)
    sock = tls.wrap(inner, records=parts.Records, write_lock=parts.Semaphore(1))
    with pytest.raises((ssl.SSLWantReadError, ssl.SSLError)):
        sock.do_handshake()
    inner.forget()
    return sock


@pytest.mark.parametrize("kind", sorted(ENDLESS))
def test_it_is_little(parts: Any, tls: TLS, certificates: Certificates, kind: str) -> None:
    data = ENDLESS[kind]
    warm = [half_open(parts, tls, data) for _ in range(20)]
    before = memory()
    crowd = [half_open(parts, tls, data) for _ in range(CROWD)]
    assert (memory() - before) / CROWD <= MOST
    assert len(warm) + len(crowd) == 20 + CROWD
