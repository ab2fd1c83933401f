"""Messages that are handled in interpreters of their own."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest
from tests.clients import LIMIT
from tests.executors import plain
from tests.scenes import EventRecorder

import everserve
from everserve.events import Failed

pytestmark = pytest.mark.skipif(sys.version_info < (3, 14), reason="needs Python 3.14")


class Upper(everserve.LineRequestHandler[Any, Any]):
    handle_message = staticmethod(plain.handle)


@pytest.mark.parametrize("concurrency", ["fibers", "pool"])
def test_messages_and_errors(concurrency: Any) -> None:
    recorder = EventRecorder()
    server = everserve.make_server(
        Upper, "tcp://127.0.0.1:0", concurrency=concurrency, executor="interpreters:2"
    )
    server.subscribe(recorder)
    with server.running() as address, socket.create_connection(address, LIMIT) as client:
        lines = client.makefile("rb")
        client.sendall(b"a\nb\n")
        assert [lines.readline()[:1] for _ in range(2)] == [b"A", b"B"]
        client.sendall(b"error\n")
        assert lines.readline() == b""
        (failed,) = recorder.wait_for(Failed)
        assert isinstance(failed.error, ValueError)
