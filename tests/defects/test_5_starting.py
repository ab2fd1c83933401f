"""Issue 2, 2.5: a thread or a child that cannot be started ends only its connection."""

from __future__ import annotations

import logging
import os
import threading
from types import ModuleType
from typing import Any

import pytest
from tests.clients import Background, connect
from tests.defects.kinds import Echoes, Serve

ADDRESS = ("127.0.0.1", 0)


def test_no_thread_left(
    socketserver_module: ModuleType,
    Echo: type,
    serve: Serve,
    echoes: Echoes,
    limit: float,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = socketserver_module.ThreadingTCPServer(ADDRESS, Echo)
    thread = serve(server)
    start = threading.Thread.start
    refused = threading.Event()

    def cannot_start(self: threading.Thread) -> None:
        if threading.current_thread() is thread and not refused.is_set():
            refused.set()
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", cannot_start)
    with connect(server.server_address, limit=limit) as client:
        assert client.recv(100) == b""
        peer = client.getsockname()
    assert echoes(server.server_address)
    Background(server.server_close).result(limit)  # joins its threads: one was never started
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("everserve", logging.ERROR)
    assert str(peer) in record.getMessage()
    assert "can't start new thread" in record.getMessage()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_no_process_left(
    socketserver_module: ModuleType,
    Echo: type,
    serve: Serve,
    echoes: Echoes,
    limit: float,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = socketserver_module.ForkingTCPServer(ADDRESS, Echo)
    serve(server)
    fork = os.fork
    refused: list[bool] = []

    def cannot_fork() -> Any:
        if not refused:
            refused.append(True)
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return fork()

    monkeypatch.setattr(os, "fork", cannot_fork)
    with connect(server.server_address, limit=limit) as client:
        assert client.recv(100) == b""
        peer = client.getsockname()
    assert echoes(server.server_address)
    Background(server.server_close).result(limit)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("everserve", logging.ERROR)
    assert str(peer) in record.getMessage()
    assert "Resource temporarily unavailable" in record.getMessage()
