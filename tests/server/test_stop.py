"""``server.stop``: a stop drains, waits, cuts, and always ends."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest
from tests.clients import LIMIT, Background, ask, connect, read_all
from tests.parts import NotedHooks, Parts
from tests.scenes import LOOPBACK, Echo, EventRecorder, Gate, Held

from everserve.combos import ThreadingTCPServer
from everserve.concurrency.strategy import Condition, Strategy, StrategyParts
from everserve.errors import ServerClosedError
from everserve.events import Draining, Finished, Opened, Stopped
from everserve.handlers.base import BaseRequestHandler
from everserve.lifecycle.state import ServerState
from everserve.server.stop import LAST_WAIT, Stop, StopReport, sum_of
from everserve.server.tcp import TCPServer


def test_the_text_of_a_report() -> None:
    assert str(StopReport(finished=3, seconds=0.5)) == "3 finished, 0 cut in 0.50 s"
    connections: Any = (object(), object())
    report = StopReport(cut=connections, unfinished=connections[:1], seconds=1)
    assert str(report) == "0 finished, 2 cut, 1 still running in 1.00 s"


def test_of_a_server_that_never_served() -> None:
    server = TCPServer(LOOPBACK, Echo)
    report = server.stop()
    assert (report.finished, report.cut, report.unfinished) == (0, (), ())
    assert server.state is ServerState.STOPPED
    assert server.draining
    assert server.fileno() == -1
    with pytest.raises(ServerClosedError, match="make a new server"):
        server.serve_forever()
    with pytest.raises(ServerClosedError):
        server.handle_request()


def test_again_gives_the_same_report() -> None:
    server = TCPServer(LOOPBACK, Echo)
    with server.running():
        first = server.stop()
        assert server.stop(0) is first
        assert Background(server.stop).result() is first


def test_it_emits_its_beginning_and_its_end() -> None:
    server, recorder = TCPServer(LOOPBACK, Echo), EventRecorder()
    server.subscribe(recorder)
    report = server.stop(2.5)
    assert recorder.events == [Draining(2.5), Stopped(report)]


def test_a_request_in_progress_may_end() -> None:
    server, recorder = ThreadingTCPServer(LOOPBACK, Held), EventRecorder()
    server.subscribe(recorder)
    with server.running() as address, connect(address) as client:
        assert client.recv(5) == b"ready"
        stop = Background(server.stop, 3600)
        recorder.wait_for(Draining)
        assert server.draining
        assert server.state is ServerState.DRAINING
        client.sendall(b"go on")
        assert read_all(client) == b"bye"
        report = stop.result()
    assert (report.finished, report.cut, report.unfinished) == (1, (), ())


def test_no_new_connection_is_admitted_while_it_drains() -> None:
    server, recorder = ThreadingTCPServer(LOOPBACK, Held), EventRecorder()
    with server.running() as address, connect(address) as client:
        assert client.recv(5) == b"ready"
        server.subscribe(recorder)
        stop = Background(server.stop, 3600)
        recorder.wait_for(Draining)
        server._everserve.life.notifier.wait_until(lambda: server.fileno() == -1)
        with pytest.raises(ConnectionRefusedError):
            connect(address)
        client.sendall(b"go on")
        stop.result()


def test_connections_in_the_backlog_are_served() -> None:
    gate = Gate()
    server = TCPServer(LOOPBACK, gate)
    recorder = EventRecorder()
    server.subscribe(recorder)
    with server.running() as address:
        clients = [connect(address) for _ in range(4)]
        assert gate.entered.acquire(timeout=LIMIT)  # one is handled, three wait
        stop = Background(server.stop, 3600)
        recorder.wait_for(Draining)
        gate.opened.set()
        report = stop.result()
        for client in clients:
            assert client.recv(100) == b""
            client.close()
    assert report.finished == 4
    assert len(recorder.of(Finished)) == 4


def test_after_the_grace_the_rest_is_cut() -> None:
    server = ThreadingTCPServer(LOOPBACK, Held)
    with server.running() as address:
        with connect(address) as first, connect(address) as second:
            assert first.recv(5) == second.recv(5) == b"ready"
            report = server.stop(0.05)
            assert read_all(first) == read_all(second) == b""
    assert report.finished == 0
    assert len({c.peer for c in report.cut}) == 2
    assert report.unfinished == ()
    assert report.seconds >= 0.05


def test_with_no_grace_it_cuts_at_once() -> None:
    server, recorder = ThreadingTCPServer(LOOPBACK, Held), EventRecorder()
    server.subscribe(recorder)
    with server.running() as address, connect(address) as client:
        assert client.recv(5) == b"ready"
        report = server.stop(0)
        assert [c.peer for c in report.cut] == [client.getsockname()]
        assert read_all(client) == b""
    recorder.wait_for(Stopped)


def test_a_handler_that_does_not_end_is_given_up() -> None:
    gate = Gate()
    server = ThreadingTCPServer(LOOPBACK, gate)
    with server.running() as address, connect(address) as client:
        assert gate.entered.acquire(timeout=LIMIT)
        report = server.stop(0)
        assert [c.peer for c in report.unfinished] == [client.getsockname()]
        assert report.unfinished == report.cut
        server.server_close()  # does not wait for it either
        gate.opened.set()
        server._everserve.life.notifier.wait_until(lambda: not server.connections)


def test_a_second_call_shortens_the_grace() -> None:
    server, recorder = ThreadingTCPServer(LOOPBACK, Held), EventRecorder()
    server.subscribe(recorder)
    with server.running() as address, connect(address) as client:
        assert client.recv(5) == b"ready"
        patient = Background(server.stop, 3600)
        recorder.wait_for(Draining)
        report = server.stop(0)
        assert patient.result() is report
        assert len(report.cut) == 1
        assert len(recorder.of(Draining)) == len(recorder.of(Stopped)) == 1


def test_a_second_call_cannot_lengthen_it() -> None:
    server, recorder = ThreadingTCPServer(LOOPBACK, Held), EventRecorder()
    server.subscribe(recorder)
    with server.running() as address, connect(address) as client:
        assert client.recv(5) == b"ready"
        first = Background(server.stop, 0.2)
        recorder.wait_for(Draining)
        assert server.stop(3600) is first.result()


def test_many_at_once_are_one_stop() -> None:
    server, recorder = ThreadingTCPServer(LOOPBACK, Echo), EventRecorder()
    server.subscribe(recorder)
    together = threading.Barrier(8)

    def stop() -> StopReport:
        together.wait(LIMIT)
        return server.stop()

    with server.running():
        reports = {id(caller.result()) for caller in [Background(stop) for _ in range(8)]}
    assert len(reports) == 1
    assert recorder.names().count("Stopped") == 1


def test_two_that_begin_at_the_same_moment_are_one_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2)

    class Slow(Stop):
        def __init__(self, *args: Any, **keywords: Any) -> None:
            together.wait(LIMIT)
            super().__init__(*args, **keywords)

    monkeypatch.setattr("everserve.server.conductor.Stop", Slow)
    server, recorder = TCPServer(LOOPBACK, Echo), EventRecorder()
    server.subscribe(recorder)
    callers = [Background(server.stop) for _ in range(2)]
    assert callers[0].result() is callers[1].result()
    assert recorder.names() == ["Draining", "Stopped"]


class StopsItself(BaseRequestHandler):
    reports: list[StopReport] = []

    def handle(self) -> None:
        self.reports.append(self.server.stop(3600))
        self.request.sendall(b"still here")


@pytest.fixture
def _no_reports() -> Iterator[None]:
    StopsItself.reports.clear()
    yield
    StopsItself.reports.clear()


@pytest.mark.usefixtures("_no_reports")
def test_from_a_handler_of_a_serial_server() -> None:
    server, recorder = TCPServer(LOOPBACK, StopsItself), EventRecorder()
    server.subscribe(recorder)
    thread = Background(server.serve_forever)
    with connect(server.server_address) as client:
        assert read_all(client) == b"still here"
    thread.result()
    (stopped,) = recorder.of(Stopped)
    assert (stopped.report.finished, stopped.report.cut) == (1, ())
    (report,) = StopsItself.reports
    assert len(report.unfinished) == 1
    assert server.state is ServerState.STOPPED


@pytest.mark.usefixtures("_no_reports")
def test_from_a_handler_in_its_thread() -> None:
    server = ThreadingTCPServer(LOOPBACK, StopsItself)
    thread = Background(server.serve_forever)
    with connect(server.server_address) as client:
        assert read_all(client) == b"still here"
    thread.result()
    (report,) = StopsItself.reports
    assert (len(report.unfinished), report.cut) == (1, ())
    assert server.state is ServerState.STOPPED


def test_twice_from_a_handler_of_a_serial_server() -> None:
    def stop_twice(request: socket.socket, client_address: Any, server: TCPServer) -> None:
        first, second = server.stop(3600), server.stop(3600)
        request.sendall(b"%d%d" % (len(first.unfinished), len(second.unfinished)))

    server = TCPServer(LOOPBACK, stop_twice)
    thread = Background(server.serve_forever)
    with connect(server.server_address) as client:
        assert read_all(client) == b"11"
    thread.result()
    assert server.state is ServerState.STOPPED


def test_from_a_handler_of_handle_request() -> None:
    def stop(request: socket.socket, client_address: Any, server: TCPServer) -> None:
        request.sendall(b"%d" % len(server.stop(3600).unfinished))

    server = TCPServer(LOOPBACK, stop)
    thread = Background(server.handle_request)
    with connect(server.server_address) as client:
        assert read_all(client) == b"1"
    thread.result()
    assert server.state is ServerState.STOPPED


def test_from_service_actions() -> None:
    class Server(TCPServer):
        def service_actions(self) -> None:
            self.stop()

    server, recorder = Server(LOOPBACK, Echo), EventRecorder()
    server.subscribe(recorder)
    Background(server.serve_forever, 0.001).result()
    assert recorder.names() == ["Serving", "Draining", "Stopped"]


@pytest.mark.timeout(60, method="thread")  # SIGALRM is its own
def test_from_a_signal_handler_of_the_serving_thread() -> None:
    server, recorder = TCPServer(LOOPBACK, Echo), EventRecorder()
    server.subscribe(recorder)
    before = signal.signal(signal.SIGALRM, lambda *_: server.stop(3600))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        server.serve_forever(3600)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert recorder.names() == ["Serving", "Draining", "Stopped"]
    assert server.state is ServerState.STOPPED


@pytest.mark.timeout(60, method="thread")  # SIGALRM is its own
def test_a_second_signal_cuts() -> None:
    server, recorder = ThreadingTCPServer(LOOPBACK, Held), EventRecorder()
    server.subscribe(recorder)
    graces = [3600.0, 0.0]

    def stop(*_: Any) -> None:
        server.stop(graces.pop(0))
        if graces:
            signal.setitimer(signal.ITIMER_REAL, 0.02)

    before = signal.signal(signal.SIGALRM, stop)
    try:
        with connect(server.server_address) as client:
            ready = Background(client.recv, 5)
            server.subscribe(
                lambda event: (
                    isinstance(event, Opened)
                    and signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
                )
            )
            server.serve_forever(3600)
            ready.result()
    finally:
        signal.signal(signal.SIGALRM, before)
    (stopped,) = recorder.of(Stopped)
    assert len(stopped.report.cut) == 1


def test_requests_that_were_closed_without_the_hooks_are_not_waited_for() -> None:
    class Server(TCPServer):
        def shutdown_request(self, request: Any) -> None:
            request.close()

    server = Server(LOOPBACK, Echo)
    with server.running() as address:
        assert ask(address) == b"ping"
        begin = monotonic()
        report = server.stop(3600)
    assert (report.cut, report.unfinished) == ((), ())
    assert monotonic() - begin < 3600


def test_while_suspended() -> None:
    server = TCPServer(LOOPBACK, Echo)
    with server.running() as address:
        server.suspend()
        with connect(address) as client:
            client.sendall(b"ping")
            stop = Background(server.stop, 3600)
            assert client.recv(100) == b"ping"
            assert stop.result().finished == 1


# -- alone: no server, no loop -----------------------------------------------------------------


class Quick(Strategy):
    """Never waits: either the test has set the condition, or the time is over."""

    def __init__(self, parts: StrategyParts) -> None:
        super().__init__(parts)
        self.was_cut: tuple[Any, ...] = ()
        self.at_the_cut: Callable[[], object] = lambda: None

    def wait_until(self, condition: Condition, deadline: Any = lambda: None) -> bool:
        return condition()

    def cut(self, hooks: Any, connections: tuple[Any, ...]) -> None:
        self.was_cut = connections
        self.at_the_cut()


class LoneStop:
    """A stop and the objects around it; the listener of its hooks is one of connections."""

    def __init__(self) -> None:
        self.parts = Parts(Quick)
        self.strategy: Any = self.parts.strategy
        self.closed_early: list[Any] = []
        self.hooks: Any = NotedHooks()

    def stop(self, grace: float = 5.0) -> Stop:
        return Stop(
            grace,
            connections=self.parts.connections,
            life=self.parts.life,
            strategy=self.strategy,
            emitter=self.parts.emitter,
            close_early=self.closed_early.append,
        )

    def request(self, runner: int | None = None) -> Any:
        """A request in progress; the test keeps it alive."""
        request = threading.Event()
        connection = self.parts.progress.accepted(request, "peer")
        assert connection is not None
        connection.runner = runner
        return request, connection


def test_alone_it_drains_waits_and_closes() -> None:
    lone = LoneStop()
    stop = lone.stop(5.0)
    stop.begin()
    assert lone.parts.life.state is ServerState.DRAINING
    assert not stop.is_over()
    report = stop.conduct(lone.hooks)
    assert stop.report is report
    assert lone.closed_early == [lone.hooks] * 2  # no loop drains, so it is closed first
    assert lone.hooks.calls == ["server_close"]
    assert lone.parts.life.state is ServerState.STOPPED
    assert lone.parts.recorder.events == [Draining(5.0), Stopped(report)]


def test_alone_another_caller_waits_until_its_end_was_emitted() -> None:
    lone = LoneStop()
    stop = lone.stop()
    stop.begin()
    waits: list[Condition] = []
    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.setattr(lone.strategy, "here", lambda: -1)
        elsewhere.setattr(lone.strategy, "wait_until", lambda met, _: waits.append(met))
        assert not stop.join().complete
    (met,) = waits
    seen: list[bool] = []
    lone.parts.emitter.subscribe(lambda event: seen.append(met()))
    stop.conduct(lone.hooks)
    assert seen == [False]  # a subscriber is being told
    assert met()


def test_alone_the_strategy_knows_of_it_before_the_accept_loop_can_end() -> None:
    lone = LoneStop()
    states: list[ServerState] = []
    lone.strategy.stopping = lambda stop: states.append(lone.parts.life.state)
    lone.parts.life.begin()
    lone.stop().begin()
    assert states == [ServerState.SERVING]
    assert lone.parts.life.state is ServerState.DRAINING


def test_alone_it_cuts_requests_that_do_not_end() -> None:
    lone = LoneStop()
    request, connection = lone.request()
    lone.strategy.at_the_cut = lambda: lone.parts.progress.ended(connection)
    stop = lone.stop()
    stop.begin()
    report = stop.conduct(lone.hooks)
    assert lone.strategy.was_cut == (connection,)
    assert (report.finished, report.cut, report.unfinished) == (0, (connection,), ())
    assert not stop.gave_up
    del request


def test_alone_it_gives_up_requests_that_do_not_end_even_then() -> None:
    lone = LoneStop()
    request, connection = lone.request()
    stop = lone.stop()
    stop.begin()
    report = stop.conduct(lone.hooks)
    assert report.unfinished == report.cut == (connection,)
    assert stop.gave_up
    assert stop.ends == stop.deadline  # no more time is needed
    del request


def test_alone_it_counts_requests_that_finished_since_it_began() -> None:
    lone = LoneStop()
    before, connection = lone.request()
    stop = lone.stop()
    stop.begin()
    lone.parts.progress.ended(connection)
    during, connection = lone.request()
    lone.parts.progress.ended(connection)
    assert stop.conduct(lone.hooks).finished == 2
    del before, during


def test_alone_it_does_not_wait_for_the_calling_request() -> None:
    lone = LoneStop()
    request, connection = lone.request(runner=lone.strategy.here())
    stop = lone.stop()
    stop.begin()
    report = stop.conduct(lone.hooks)
    assert (report.cut, report.unfinished) == ((), (connection,))
    assert lone.strategy.was_cut == ()
    del request


def test_alone_on_the_serving_thread_it_is_left_to_the_end_of_the_run() -> None:
    lone = LoneStop()
    lone.parts.life.begin()
    stop = lone.stop()
    stop.begin()
    assert not stop.conduct(lone.hooks).complete
    assert stop.is_left_to(lone.strategy.here())
    assert not stop.is_left_to(-1)
    lone.parts.life.end()
    report = stop.complete(lone.hooks)
    assert not stop.is_left_to(lone.strategy.here())
    assert lone.parts.recorder.of(Stopped) == [Stopped(report)]


def test_alone_a_second_call_can_only_shorten_the_grace() -> None:
    stop = LoneStop().stop(60.0)
    before = stop.deadline
    stop.hurry(3600.0)
    assert stop.deadline == before
    stop.hurry(0.0)
    assert stop.is_over()
    assert stop.ends == stop.deadline + LAST_WAIT


def test_alone_the_second_gets_the_report_of_the_first() -> None:
    lone = LoneStop()
    stop = lone.stop()
    stop.begin()
    assert not stop.join().complete  # the first runs in this very thread: no wait
    report = stop.conduct(lone.hooks)
    assert stop.join() is report
    assert Background(stop.join).result() is report


@pytest.mark.parametrize("has_own", [True, False])
def test_alone_a_listener_of_datagrams_is_kept_for_the_calling_request(has_own: bool) -> None:
    lone = LoneStop()
    kept: list[bool] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as lone.hooks.socket:
        request, connection = lone.request(lone.strategy.here() if has_own else None)
        if not has_own:
            lone.parts.progress.ended(connection)
        lone.hooks.does["server_close"] = lambda: kept.append(lone.parts.life.keeps_listener)
        stop = lone.stop()
        stop.begin()
        stop.conduct(lone.hooks)
    assert kept == [has_own]
    del request


def test_the_reports_of_several_servers_are_one() -> None:
    first: Any
    second: Any
    first, second = object(), object()
    total = sum_of(
        [
            StopReport(finished=1, cut=(first,), seconds=0.5),
            StopReport(finished=2, cut=(second,), unfinished=(second,), seconds=0.25),
        ]
    )
    assert total == StopReport(3, (first, second), (second,), 0.5)
    assert sum_of([]) == StopReport()


def test_alone_a_second_that_cannot_wait_longer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everserve.server.stop.PATIENCE", 0.0)
    monkeypatch.setattr("everserve.server.stop.LAST_WAIT", 0.0)
    lone = LoneStop()
    stop = lone.stop(0.0)
    stop.begin()  # and never goes on
    request, connection = lone.request()
    report = Background(stop.join).result()
    assert (report.complete, report.unfinished) == (False, (connection,))
    assert str(report).endswith(", not complete")
    del request


def test_alone_a_close_that_raises_ends_the_stop_all_the_same() -> None:
    lone = LoneStop()
    lone.hooks.does["server_close"] = lambda *_: 1 / 0
    stop = lone.stop()
    stop.begin()
    with pytest.raises(ZeroDivisionError):
        stop.conduct(lone.hooks)
    assert stop.join().complete
    assert len(lone.parts.recorder.of(Stopped)) == 1
