"""Peers that never read: the memory for them is bounded, and their fibers wait."""

from __future__ import annotations

import os
import resource
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

PEERS = 500
PIECE = b"x" * 4096
KEPT = 160 << 10  # bytes a peer: the high water mark, its block, and the fiber


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.fixture(autouse=True)
def _descriptors() -> None:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2 * PEERS + 100:
        pytest.skip(f"needs {2 * PEERS + 100} descriptors, and has {soft}")


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="reads the memory of the process on Linux only"
)
@pytest.mark.parametrize("how", ["wfile", "sendall"])
def test_peers_that_never_read_cost_bounded_memory(parts: Any, hub: Any, how: str) -> None:
    """The kernel's buffers are small here, so that the memory of the fibers is what counts."""
    written = [0] * PEERS

    def write_for_ever(number: int, sock: Any) -> None:
        reader, writer = parts.streams.open_stream(sock, coalesce=how == "wfile")
        with sock, suppress(OSError), reader, writer:  # the peer closes in the end
            while True:
                writer.write(PIECE)
                written[number] += len(PIECE)

    before = resident()
    pairs = [socket.socketpair() for _ in range(PEERS)]
    for ours, peer in pairs:
        for end in (ours, peer):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    socks = [parts.FiberSocket.adopt(ours) for ours, _peer in pairs]
    fibers = [hub.spawn(write_for_ever, number, sock) for number, sock in enumerate(socks)]
    turn_until_all_wait(hub, fibers)
    total, grown = sum(written), resident() - before
    for _ in range(20):
        hub.turn(0)
    assert sum(written) == total
    assert all(fiber.parked for fiber in fibers)
    assert grown < PEERS * KEPT
    for _ours, peer in pairs:
        peer.close()
    assert all(fiber.join(20) for fiber in fibers)


def turn_until_all_wait(hub: Any, fibers: list[Any]) -> None:
    for _turn in range(100_000):
        switches = hub.switches
        hub.turn(0)
        if hub.switches == switches and all(fiber.parked for fiber in fibers):
            return
    raise AssertionError("they still write")
