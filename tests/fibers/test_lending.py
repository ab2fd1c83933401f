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


def test_tls_cannot_be_lent() -> None:
    secured = TLSSocket.__new__(TLSSocket)
    with pytest.raises(ValueError, match="TLS"), lend(secured):
        pass
