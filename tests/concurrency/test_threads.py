"""``concurrency.threads``: a thread for each request."""

from __future__ import annotations

import socketserver
import threading
from typing import Any

import pytest
from tests.clients import LIMIT, Background, ask, connect, serving
from tests.scenes import LOOPBACK, Echo, EventRecorder, Gate, Held

from everserve.combos import ThreadingTCPServer
from everserve.events import Refused
from everserve.mixins import ThreadingMixIn


def test_the_defaults() -> None:
    assert ThreadingMixIn.daemon_threads is False
    assert ThreadingMixIn.block_on_close is True


def test_each_request_has_its_thread() -> None:
    threads: list[Any] = []

    def note(*_: Any) -> None:
        threads.append(threading.current_thread())

    server = ThreadingTCPServer(LOOPBACK, note)
    with serving(server) as address:
        for _ in range(3):
            with connect(address) as client:
                assert client.recv(1) == b""
    assert len(set(threads)) == 3
    assert all("process_request_thread" in thread.name for thread in threads)
    assert not server._threads
    for thread in threads:  # its last step removes it from the server's list
        thread.join(LIMIT)


def test_many_at_once() -> None:
    with serving(ThreadingTCPServer(LOOPBACK, Held)) as address:
        clients = [connect(address) for _ in range(20)]
        for client in clients:
            assert client.recv(5) == b"ready"
        for client in clients:
            client.sendall(b"go on")
            assert client.recv(5) == b"bye"
            client.close()


@pytest.mark.parametrize("daemon", [True, False])
def test_daemon_threads(daemon: bool) -> None:
    gate = Gate()
    server = ThreadingTCPServer(LOOPBACK, gate)
    server.daemon_threads = daemon
    with connect(server.server_address):
        server.handle_request()
        assert gate.entered.acquire(timeout=LIMIT)
        (thread,) = server._threads or ()
        assert thread.daemon is daemon
        closing = Background(server.server_close)
        if daemon:
            closing.result()
            assert thread.is_alive()
        gate.opened.set()
        closing.result()
        thread.join(LIMIT)


def test_closing_waits_for_them() -> None:
    gate = Gate()
    server = ThreadingTCPServer(LOOPBACK, gate)
    with connect(server.server_address):
        server.handle_request()
        assert gate.entered.acquire(timeout=LIMIT)
        closing = Background(server.server_close)
        closing.join(0.02)
        assert closing.is_alive()
        gate.opened.set()
        closing.result()


def test_closing_does_not_wait_without_block_on_close() -> None:
    gate = Gate()
    server = ThreadingTCPServer(LOOPBACK, gate)
    server.block_on_close = False
    with connect(server.server_address):
        server.handle_request()
        assert gate.entered.acquire(timeout=LIMIT)
        server.server_close()
        (thread,) = server._threads or ()
        gate.opened.set()
        thread.join(LIMIT)


def test_a_handler_may_close_the_server() -> None:
    def close(request: Any, client_address: Any, server: Any) -> None:
        server.server_close()
        request.sendall(b"closed")

    server = ThreadingTCPServer(LOOPBACK, close)
    with connect(server.server_address) as client:
        server.handle_request()
        assert client.recv(10) == b"closed"
        assert client.recv(10) == b""


def test_closing_a_server_that_had_no_request() -> None:
    ThreadingTCPServer(LOOPBACK, Echo).server_close()


def test_a_thread_that_cannot_be_started_is_removed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server, recorder = ThreadingTCPServer(LOOPBACK, Echo), EventRecorder()
    server.subscribe(recorder)

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with connect(server.server_address) as client:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            server.handle_request()
        assert client.recv(1) == b""
    assert not server._threads
    (refused,) = recorder.of(Refused)
    assert recorder.names() == ["Accepted", "Refused"]
    assert refused.reason == "error"
    assert isinstance(refused.error, RuntimeError)
    assert len(caplog.records) == 1
    server.server_close()


def test_a_thread_that_runs_although_its_start_has_failed_emits_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where memory is exhausted after the thread has been made."""
    made: list[Any] = []
    server, recorder = (
        ThreadingTCPServer(LOOPBACK, lambda *args: made.append(args)),
        EventRecorder(),
    )
    server.subscribe(recorder)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    refused, ended = threading.Event(), threading.Event()
    run = server.process_request_thread

    def late(*request: Any) -> None:
        assert refused.wait(LIMIT)
        run(*request)
        ended.set()

    server.process_request_thread = late  # type: ignore[method-assign]
    start = threading.Thread.start

    def start_and_fail(thread: threading.Thread) -> None:
        start(thread)
        raise MemoryError

    with connect(server.server_address):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start_and_fail)
            server.handle_request()
        refused.set()
        assert ended.wait(LIMIT)
    assert recorder.names() == ["Accepted", "Refused"]
    server.server_close()


def test_it_works_on_the_standard_librarys_server() -> None:
    class Server(ThreadingMixIn, socketserver.TCPServer):  # type: ignore[misc]
        pass

    server = Server(LOOPBACK, Echo)
    with serving(server, 0.01) as address:
        assert ask(address) == b"ping"
    assert not server._threads


def test_a_close_does_not_wait_for_threads_that_only_the_parent_has() -> None:
    """In a child of fork the threads of the parent have ended, without their last step."""
    server = ThreadingTCPServer(LOOPBACK, Echo)
    gone = Background(lambda: None)
    gone.result()
    server._everserve.strategy.running[gone] = None  # type: ignore[attr-defined]
    server.server_close()
