"""`lend`: a child process uses the connection of a fiber."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import Any

import pytest
from tests.contract.kinds import STRATEGIES

import everserve
from everserve.fibers import lend, offload
from everserve.sockets.tls import TLSSocket

Pair = tuple[Any, socket.socket]

FORKS = "ignore:This process .* is multi-threaded:DeprecationWarning"


class Child(everserve.StreamRequestHandler):
    """A child process answers, with more than the kernel buffers for a connection."""

    timeout = 60

    def handle(self) -> None:
        self.wfile.write(b"before\n")
        with lend(self.request) as lent:
            command = ["head", "-c", "10000000", "/dev/zero"]
            offload(lambda: subprocess.run(command, stdout=lent, check=True))
        self.wfile.write(b"after\n")


@pytest.mark.filterwarnings(FORKS)
@pytest.mark.parametrize("word", [strategy.name for strategy in STRATEGIES])
def test_a_child_writes_to_the_connection(word: str) -> None:
    server = everserve.make_server(Child, "tcp://127.0.0.1:0", concurrency=word)  # type: ignore[arg-type]
    with server.running() as address, socket.create_connection(address, timeout=60) as client:
        file = client.makefile("rb")
        assert file.readline() == b"before\n"
        assert len(file.read(10_000_000)) == 10_000_000
        assert file.read() == b"after\n"


def test_the_mode_is_as_before(pair: Pair) -> None:
    ours, _ = pair
    with lend(ours) as lent:
        assert lent is ours
        assert os.get_blocking(ours.fileno())
    assert not os.get_blocking(ours.fileno())
    with lend(ours):
        ours.close()


def test_a_descriptor_that_blocks_does_not_stop_the_loop(hub: Any, pair: Pair) -> None:
    ours, peer = pair
    got: list[Any] = []
    os.set_blocking(ours.fileno(), True)
    buffer = bytearray(9)
    calls = (
        lambda: ours.recv(10),
        lambda: ours.recv_into(buffer),
        lambda: ours.recvfrom(10)[0],
        lambda: ours.recvmsg(10)[0],
    )
    for call in calls:
        fiber = hub.spawn(lambda call=call: got.append(call()))
        hub.turn(0)
        hub.turn(0)
        assert fiber.parked
        peer.sendall(b"hello")
        assert fiber.join(10)
    assert got == [b"hello", 5, b"hello", b"hello"]


def test_a_descriptor_that_blocks_is_written_in_turns(hub: Any, pair: Pair) -> None:
    ours, peer = pair
    os.set_blocking(ours.fileno(), True)
    fiber = hub.spawn(ours.sendall, bytes(10_000_000))
    hub.turn(0)
    hub.turn(0)
    assert fiber.parked
    ours.close()
    assert peer.recv(1)


def test_tls_cannot_be_lent() -> None:
    secured = TLSSocket.__new__(TLSSocket)
    with pytest.raises(ValueError, match="TLS"), lend(secured):
        pass
