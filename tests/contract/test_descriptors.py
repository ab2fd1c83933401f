"""The contract: whatever happened, no descriptor is left behind."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.contract.kinds import Client, Strategy, Transport, make_server_class
from tests.scenes import EventRecorder

from everserve.events import Accepted

HERE = Path("/proc/self/fd")

pytestmark = pytest.mark.skipif(not HERE.exists(), reason="looks at /proc")


def descriptors() -> dict[int, str]:
    gc.collect()  # of other tests, too
    opened = {}
    for name in os.listdir(HERE):
        try:
            opened[int(name)] = os.readlink(HERE / name)
        except OSError:
            pass  # the one of listdir itself
    return opened


def test_none_is_left_open(strategy: Strategy, transport: Transport, tmp_path: Path) -> None:
    def handle(handler: Any) -> None:
        line = handler.rfile.readline()
        if line == b"fail\n":
            raise ValueError("must fail")
        handler.wfile.write(line)

    def verify_request(self: Any, request: Any, client_address: Any) -> bool:
        return next(turns)

    turns = iter([True, False, True, True])
    handler = type("Handler", (transport.handler,), {"handle": handle})
    kind = make_server_class(
        strategy, transport, verify_request=verify_request, handle_error=lambda *_: None
    )
    before = descriptors()
    server, recorder = kind(transport.address(tmp_path), handler), EventRecorder()
    server.subscribe(recorder)
    with server.running():
        for number, line in enumerate((b"ping\n", b"refused\n", b"fail\n", b"ping\n")):
            client = Client(server, transport, tmp_path, number)
            client.offer(line)
            recorder.wait_for(Accepted, number + 1)
            server._everserve.life.notifier.wait_until(lambda: not server.connections)
            client.close()
    recorder.events.clear()  # with the errors, whose tracebacks hold what was open
    assert descriptors() == before


def test_a_server_that_cannot_bind_leaves_none(
    strategy: Strategy, transport: Transport, tmp_path: Path
) -> None:
    kind: Callable[..., Any] = make_server_class(strategy, transport)
    with kind(transport.address(tmp_path), transport.handler) as first:
        before = descriptors()
        with pytest.raises(OSError):
            kind(first.server_address, transport.handler)
        assert descriptors() == before


def test_a_server_that_was_never_used_leaves_none(
    strategy: Strategy, transport: Transport, tmp_path: Path
) -> None:
    before = descriptors()
    kind = make_server_class(strategy, transport)
    for end in ("server_close", "stop", "__exit__"):
        server = kind(transport.address(tmp_path), transport.handler)
        getattr(server, end)(*([None] * 3 if end == "__exit__" else []))
        assert descriptors() == before
