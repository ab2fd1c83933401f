"""Peers that are gone without a word, while small writes to them "succeed": TCP gives them up."""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
import threading
from typing import Any

import pytest
from tests.clients import LIMIT, connect

import everserve
from everserve.serving import make_server

SO_ATTACH_FILTER = 26
PAUSE = 0.05
"""Seconds between two writes: less than any peer needs to be missed."""


def deafen(sock: socket.socket) -> None:
    """Drop all that arrives, acknowledgements too, as if the peer had no network (socket(7))."""
    drop = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0
    program = struct.pack("HL", 1, ctypes.addressof(drop))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


@pytest.mark.skipif(sys.platform != "linux", reason="socket filters are Linux's")
@pytest.mark.parametrize("concurrency", ["threads", "fibers"])
def test_small_writes_end_by_tcp_user_timeout(concurrency: str) -> None:
    """No `write_timeout` ends them: each write has room in the kernel, and so is done at once."""
    ended: list[BaseException] = []
    done = threading.Event()

    class Ticker(everserve.StreamRequestHandler[Any, Any]):
        def handle(self) -> None:
            self.rfile.readline()
            try:
                while not done.is_set():
                    self.wfile.write(b"tick\n")
                    self.wfile.flush()
                    everserve.fibers.sleep(PAUSE)
            except OSError as error:
                ended.append(error)
            finally:
                done.set()

    server = make_server(
        Ticker,
        "tcp://127.0.0.1:0",
        concurrency=concurrency,
        tcp_user_timeout=1,
        write_timeout=None,
        idle_timeout=None,
    )
    with server.running(grace=0) as address, connect(address) as client:
        client.sendall(b"go\n")
        assert client.recv(5) == b"tick\n"
        deafen(client)
        assert done.wait(LIMIT)
    assert isinstance(ended[0], (TimeoutError, ConnectionError))
