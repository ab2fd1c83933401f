"""``server.base``: the flow as hooks, on a server that needs no network."""

from __future__ import annotations

import logging
import queue
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests.clients import LIMIT, ask, connect, serving
from tests.scenes import LOOPBACK, Echo, EventRecorder, Gate

from everserve.combos import ThreadingTCPServer
from everserve.errors import AlreadyServingError, ServerClosedError
from everserve.events import Accepted, Failed, Finished, Opened, Refused, ServerEvent, Serving
from everserve.lifecycle.stages import ConnectionState
from everserve.lifecycle.state import ServerState
from everserve.reading import Reading
from everserve.server.base import BaseServer
from everserve.server.tcp import TCPServer


class Queued(BaseServer):
    """A server whose requests are objects from a queue."""

    def __init__(self, handler: Any) -> None:
        super().__init__("a queue", handler)
        self.requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._reader, self._writer = socket.socketpair()

    def put(self, request: Any) -> None:
        self.requests.put(request)
        self._writer.send(b"x")

    def fileno(self) -> int:
        return self._reader.fileno()

    def get_request(self) -> tuple[Any, Any]:
        self._reader.recv(1)
        return self.requests.get(), "peer"

    def server_close(self) -> None:
        super().server_close()
        self._reader.close()
        self._writer.close()


@pytest.fixture
def handled() -> list[Any]:
    return []


@pytest.fixture
def server(handled: list[Any]) -> Iterator[Queued]:
    with Queued(lambda request, *_: handled.append(request)) as server:
        yield server


def test_a_server_without_a_socket(server: Queued, handled: list[Any]) -> None:
    for number in range(3):
        server.put(number)
        server.handle_request()
    assert handled == [0, 1, 2]
    assert len(server.connections) == 0


def test_it_serves_forever_and_stops(server: Queued, handled: list[Any]) -> None:
    recorder = EventRecorder()
    server.subscribe(recorder)
    with server.running() as address:
        assert address == "a queue"
        server.put(object())
        recorder.wait_for(Finished)
        server.put(handled)
        recorder.wait_for(Finished, 2)
    assert len(handled) == 2


def test_abstract_hooks_raise() -> None:
    server = BaseServer("nowhere", Echo)
    with pytest.raises(NotImplementedError, match="BaseServer has no fileno"):
        server.fileno()
    with pytest.raises(NotImplementedError, match="BaseServer has no get_request"):
        server.get_request()


def test_the_hooks_that_do_nothing() -> None:
    server = BaseServer("nowhere", Echo)
    server.server_activate()
    server.service_actions()
    server.handle_timeout()
    assert server.verify_request(None, None) is True


def test_a_closed_server_raises() -> None:
    server = TCPServer(LOOPBACK, Echo)
    server.server_close()
    for call in (server.serve_forever, server.handle_request):
        with pytest.raises(ServerClosedError, match="TCPServer is closed: make a new server"):
            call()
    with pytest.raises(ValueError):
        server.serve_forever()


def test_serve_forever_runs_once_at_a_time() -> None:
    server = TCPServer(LOOPBACK, Echo)
    with serving(server) as address:
        ask(address)
        with pytest.raises(AlreadyServingError, match="serve_forever"):
            server.serve_forever()
        assert ask(address) == b"ping"


def test_the_old_event_is_set_before_shutdown_returns() -> None:
    server = TCPServer(LOOPBACK, Echo)
    event = server._BaseServer__is_shut_down  # type: ignore[attr-defined]
    sessions = []
    original = event.set

    def note() -> None:
        sessions.append(server._everserve.life.session)
        original()

    event.set = note
    with serving(server) as address:
        ask(address)
        assert not event.is_set()
    assert event.is_set()
    assert sessions[0] is not None  # a caller that waits for the session finds the event set


def test_the_old_flag_can_be_read() -> None:
    with TCPServer(LOOPBACK, Echo) as server:
        assert server._BaseServer__shutdown_request is False  # type: ignore[attr-defined]
        server.shutdown()
        assert server._BaseServer__shutdown_request is True  # type: ignore[attr-defined]


# -- events ------------------------------------------------------------------------------------


def test_the_events_of_a_request(server: Queued) -> None:
    recorder = EventRecorder()
    server.subscribe(recorder)
    with server.running():
        server.put("request")
        recorder.wait_for(Finished)
    assert recorder.names() == [
        "Serving", "Accepted", "Opened", "Finished", "Draining", "Stopped"
    ]  # fmt: skip
    serving, accepted, opened, finished = recorder.events[:4]
    assert serving == Serving("a queue")
    assert accepted == Accepted(1, "peer")
    assert opened == Opened(1, "peer")
    assert finished == Finished(1, "peer", finished.seconds)
    assert finished.seconds >= 0


@pytest.mark.parametrize("hook", ["verify_request", "process_request", "finish_request"])
def test_the_events_of_a_failure(hook: str, server: Queued) -> None:
    recorder, error = EventRecorder(), ValueError(hook)

    def fail(*_: Any) -> Any:
        raise error

    setattr(server, hook, fail)
    server.subscribe(recorder)
    server.put("request")
    server.handle_request()
    accepted = Accepted(1, "peer")
    if hook == "finish_request":  # it stands for the handler
        assert recorder.events == [accepted, Opened(1, "peer"), Failed(1, "peer", error, False)]
    else:
        assert recorder.events == [accepted, Refused(1, "peer", "error", error)]
    assert len(server.connections) == 0


def test_the_events_of_a_refusal(server: Queued, handled: list[Any]) -> None:
    recorder = EventRecorder()
    server.subscribe(recorder)
    server.verify_request = lambda *_: False  # type: ignore[method-assign]
    server.put("request")
    server.handle_request()
    assert recorder.events == [Accepted(1, "peer"), Refused(1, "peer", "verify_request")]
    assert handled == []


def test_a_refusal_without_subscribers(server: Queued, handled: list[Any]) -> None:
    server.verify_request = lambda *_: False  # type: ignore[method-assign]
    server.put("request")
    server.handle_request()
    assert handled == []
    assert len(server.connections) == 0


def test_a_request_that_the_server_has_not_accepted(server: Queued, handled: list[Any]) -> None:
    recorder = EventRecorder()
    server.subscribe(recorder)
    server.finish_request("from elsewhere", "peer")
    server.shutdown_request("from elsewhere")
    assert handled == ["from elsewhere"]
    assert recorder.events == []


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_base_exception_is_raised_and_the_request_closed(
    kind: type[BaseException], server: Queued
) -> None:
    def leave(*_: Any) -> None:
        raise kind

    recorder, closed = EventRecorder(), []
    server.RequestHandlerClass = leave
    server.subscribe(recorder)
    original = server.close_request
    server.close_request = lambda request: (closed.append(request), original(request))  # type: ignore
    server.put("request")
    with pytest.raises(kind):
        server.handle_request()
    assert closed == ["request"]
    assert recorder.names() == ["Accepted", "Opened", "Failed"]


def test_subscribing_and_unsubscribing(server: Queued) -> None:
    first, second = EventRecorder(), EventRecorder()
    end_first, end_again = server.subscribe(first), server.subscribe(first)
    server.subscribe(second)
    server._everserve.emitter.emit(ServerEvent())
    end_first()
    server._everserve.emitter.emit(ServerEvent())
    end_again()
    end_again()
    server._everserve.emitter.emit(ServerEvent())
    assert (len(first.events), len(second.events)) == (3, 3)


def test_a_subscriber_that_fails_is_logged(
    server: Queued, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: ServerEvent) -> None:
        raise ValueError("cannot hear")

    recorder = EventRecorder()
    server.subscribe(fail)
    server.subscribe(recorder)
    server._everserve.emitter.emit(Serving("here"))
    assert recorder.events == [Serving("here")]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("everserve", logging.ERROR)
    assert "serving on 'here'" in record.getMessage()


# -- errors ------------------------------------------------------------------------------------


def test_handle_error_outside_of_an_error(caplog: pytest.LogCaptureFixture) -> None:
    BaseServer("nowhere", Echo).handle_error(None, "peer")
    (record,) = caplog.records
    assert record.getMessage() == "request from 'peer' failed"
    assert not record.exc_info


def test_a_get_request_that_fails_is_reported_by_name_and_backs_off(
    server: Queued, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Any:
        raise ValueError("empty")

    server.get_request = fail  # type: ignore[method-assign]
    server._writer.send(b"x")
    server.handle_request()
    assert server._everserve.acceptor.back_off.delay > 0
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    assert record.exc_info[1].__notes__ == [
        "raised by Queued.get_request(), before there was a request"
    ]


def test_a_request_that_cannot_be_closed_is_reported_and_dropped(
    server: Queued, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("stuck")

    recorder = EventRecorder()
    server.subscribe(recorder)
    server.shutdown_request = fail  # type: ignore[method-assign]
    server.put("request")
    server.handle_request()
    assert len(server.connections) == 0
    assert recorder.names() == ["Accepted", "Opened", "Failed"]
    assert [record.getMessage() for record in caplog.records] == [
        "failed #1 from 'peer': ValueError('stuck')",
        "closing the request from 'peer' failed",
    ]


def test_a_handle_error_that_raises_ends_the_server_and_closes_the_request(
    server: Queued,
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("strict")

    server.RequestHandlerClass = fail
    server.handle_error = fail  # type: ignore[method-assign]
    server.put("request")
    with pytest.raises(ValueError, match="strict"):
        server.serve_forever()
    assert len(server.connections) == 0
    assert server.state is ServerState.READY


# -- the view of requests in progress -----------------------------------------------------------


def test_connections_in_progress() -> None:
    gate = Gate()
    server = ThreadingTCPServer(LOOPBACK, gate)
    with server.running() as address:
        with connect(address) as client:
            assert gate.entered.acquire(timeout=LIMIT)
            (connection,) = server.connections
            assert connection.peer == client.getsockname()
            assert connection.state is ConnectionState.HANDLING
            assert connection in server.connections
            gate.opened.set()
            assert client.recv(1) == b""
        server._everserve.life.notifier.wait_until(lambda: not server.connections)
    assert connection.state is ConnectionState.CLOSED


def test_the_sequence_of_states() -> None:
    server = TCPServer(LOOPBACK, Echo)
    states, recorder = [server.state], EventRecorder()
    server.subscribe(lambda event: states.append(server.state))
    server.subscribe(recorder)
    with server.running():
        recorder.wait_for(Serving)
        server.suspend()
        states.append(server.state)
        server.resume()
        assert not server.draining
    assert states == [
        ServerState.READY,
        ServerState.SERVING,
        ServerState.SUSPENDED,
        ServerState.DRAINING,
        ServerState.STOPPED,
    ]
    assert server.draining


def test_a_program_may_have_attributes_of_the_new_names() -> None:
    class Chat(TCPServer):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.connections: Any = set()
            self.state: Any = "lobby"
            self.draining: Any = None

    server = Chat(LOOPBACK, Echo)
    with serving(server) as address:
        assert ask(address) == b"ping"
    assert (server.connections, server.state, server.draining) == (set(), "lobby", None)
    with Chat(LOOPBACK, Echo).running() as address:
        assert ask(address) == b"ping"


def test_a_reading_on_the_class_is_itself() -> None:
    assert isinstance(BaseServer.state, Reading)
    assert BaseServer.state.__doc__ is not None
    assert "Where the server is in its life" in BaseServer.state.__doc__


def test_serve_forever_after_an_interrupt_serves_again() -> None:
    class Server(TCPServer):
        interrupted = False

        def service_actions(self) -> None:
            if not self.interrupted:
                self.interrupted = True
                raise KeyboardInterrupt

    server = Server(LOOPBACK, Echo)
    with pytest.raises(KeyboardInterrupt):
        server.serve_forever(0.001)
    assert server.state is ServerState.READY
    with serving(server) as address:
        assert ask(address) == b"ping"


def test_its_wake_up_is_made_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    server = BaseServer(("", 0), Echo)
    monkeypatch.setattr("everserve.lifecycle.state.Wakeup", None)  # as where no descriptor is left
    server.shutdown()
    assert server._everserve.life.wakeup()
