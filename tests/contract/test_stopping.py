"""The contract: a stop always ends, and reports how it went."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from tests.clients import LIMIT, Background
from tests.contract.kinds import Client, Gate, Strategy, Transport
from tests.scenes import EventRecorder

from everserve.errors import ServerClosedError
from everserve.events import Draining, Finished, Stopped
from everserve.lifecycle.state import ServerState
from everserve.server import stop

MakeServer = Callable[..., Any]
MakeClient = Callable[[Any], Client]


@pytest.fixture
def held(make_server: MakeServer, gate: Gate) -> Any:
    """A server whose handlers wait at the gate, then send whether the server drains."""

    def handle(handler: Any) -> None:
        handler.rfile.readline()
        gate.hold()
        handler.wfile.write(b"draining\n" if handler.server.draining else b"serving\n")

    return make_server(handle)


def test_an_idle_server(make_server: MakeServer) -> None:
    server = make_server(lambda handler: None)
    with server.running():
        report = server.stop(3600)
    assert (report.finished, report.cut, report.unfinished) == (0, (), ())
    assert server.state is ServerState.STOPPED
    assert server.fileno() == -1


def test_requests_in_progress_may_end(
    held: Any, make_client: MakeClient, gate: Gate, recorder: EventRecorder
) -> None:
    held.subscribe(recorder)
    with held.running():
        client = make_client(held)
        client.send(b"ping\n")
        gate.wait_entered()
        stop = Background(held.stop, 3600)
        recorder.wait_for(Draining)
        gate.open()
        assert client.receive() == b"draining\n"
        report = stop.result()
    assert (report.finished, report.cut, report.unfinished) == (1, (), ())
    assert len(recorder.of(Finished)) == 1
    assert recorder.of(Stopped) == [Stopped(report)]


def test_waiting_connections_are_served(
    held: Any, make_client: MakeClient, gate: Gate, recorder: EventRecorder
) -> None:
    held.max_workers = held.max_children = 1  # for the strategies that have them
    held.subscribe(recorder)
    with held.running():
        clients = [make_client(held) for _ in range(3)]
        for client in clients:
            client.send(b"ping\n")
        gate.wait_entered()
        stop = Background(held.stop, 3600)
        recorder.wait_for(Draining)
        gate.open(3)
        for client in clients:
            assert client.receive() == b"draining\n"
        report = stop.result()
    assert (report.finished, report.cut) == (3, ())


def test_with_no_grace_it_is_cut(
    make_server: MakeServer, make_client: MakeClient, stream: Transport
) -> None:
    def handle(handler: Any) -> None:
        handler.wfile.write(b"ready\n")
        handler.wfile.flush()
        handler.request.recv(100)  # ends when the connection is shut down

    server = make_server(handle)
    with server.running():
        client = make_client(server)
        assert client.receive() == b"ready\n"
        report = server.stop(0)
        client.end()
    assert (report.finished, len(report.cut), report.unfinished) == (0, 1, ())


def test_a_blocked_read_of_rfile_ends_when_it_is_cut(
    make_server: MakeServer, make_client: MakeClient, stream: Transport
) -> None:
    def handle(handler: Any) -> None:
        handler.wfile.write(b"ready\n")
        handler.wfile.flush()
        handler.rfile.readline()

    server = make_server(handle)
    with server.running():
        client = make_client(server)
        assert client.receive() == b"ready\n"
        report = server.stop(0.01)
    assert (len(report.cut), report.unfinished) == (1, ())


@pytest.fixture
def _given_up_soon(strategy: Strategy, monkeypatch: pytest.MonkeyPatch) -> None:
    # Processes are killed, and a busy machine needs time for that; nothing waits longer than they.
    monkeypatch.setattr(stop, "LAST_WAIT", LIMIT if strategy.in_processes else 0.02)


@pytest.mark.usefixtures("_given_up_soon")
def test_a_handler_that_does_not_end_is_given_up(
    held: Any, make_client: MakeClient, gate: Gate, strategy: Strategy
) -> None:
    thread = Background(held.serve_forever)
    client = make_client(held)
    client.send(b"ping\n")
    gate.wait_entered()
    report = held.stop(0)
    assert len(report.cut) == 1
    assert len(report.unfinished) == (0 if strategy.in_processes else 1)
    gate.open()
    thread.result()
    held._everserve.life.notifier.wait_until(lambda: not held.connections)


def test_from_inside_a_handler(
    strategy: Strategy,
    make_server: MakeServer,
    make_client: MakeClient,
    recorder: EventRecorder,
) -> None:
    def handle(handler: Any) -> None:
        handler.rfile.readline()
        report = handler.server.stop(3600)
        handler.wfile.write(b"%d unfinished\n" % len(report.unfinished))

    server = make_server(handle)
    server.subscribe(recorder)
    thread = Background(server.serve_forever, 3600)
    client = make_client(server)
    client.send(b"ping\n")
    recorder.wait_for(Stopped)
    thread.result()
    assert server.state is ServerState.STOPPED
    # A task of the loop cannot wait for it: there the end of the run completes the stop.
    assert client.receive() == (b"0 unfinished\n" if strategy.awaits else b"1 unfinished\n")
    server._everserve.life.notifier.wait_until(lambda: server.fileno() == -1)
    with pytest.raises(ServerClosedError):
        server.serve_forever()


def test_shutdown_from_inside_a_handler(make_server: MakeServer, make_client: MakeClient) -> None:
    def handle(handler: Any) -> None:
        handler.rfile.readline()
        handler.server.shutdown()
        handler.wfile.write(b"shut down\n")

    server = make_server(handle)
    thread = Background(server.serve_forever, 3600)
    assert make_client(server).ask(b"ping\n") == b"shut down\n"
    thread.result()
    assert server.state is ServerState.READY


@pytest.mark.usefixtures("_given_up_soon")
def test_a_second_stop_cuts(
    held: Any, make_client: MakeClient, gate: Gate, recorder: EventRecorder, strategy: Strategy
) -> None:
    held.subscribe(recorder)
    thread = Background(held.serve_forever)
    client = make_client(held)
    client.send(b"ping\n")
    gate.wait_entered()
    patient = Background(held.stop, 3600)
    recorder.wait_for(Draining)
    report = held.stop(0)
    assert patient.result() is report
    assert len(report.cut) == 1
    gate.open()
    thread.result()
    held._everserve.life.notifier.wait_until(lambda: not held.connections)


def test_while_it_drains_it_admits_no_connection(
    held: Any, make_client: MakeClient, gate: Gate, stream: Transport, concurrent: Strategy
) -> None:
    with held.running():
        client = make_client(held)
        client.send(b"ping\n")
        gate.wait_entered()
        stop = Background(held.stop, 3600)
        held._everserve.life.notifier.wait_until(lambda: held._everserve.life.session is None)
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            make_client(held)
        gate.open()
        assert client.receive() == b"draining\n"
        assert stop.result().finished == 1


# -- a run that ends by an exception -----------------------------------------------------------


class Ended(Exception):
    pass


@pytest.mark.parametrize("error", [Ended, KeyboardInterrupt])
@pytest.mark.parametrize("hook", ["service_actions", "verify_request"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_however_a_run_ends_what_it_accepted_is_closed_and_counted(
    make_server: MakeServer,
    make_client: MakeClient,
    stream: Transport,
    recorder: EventRecorder,
    error: type[BaseException],
    hook: str,
) -> None:
    if hook == "verify_request" and error is Ended:
        pytest.skip("costs one request alone")
    asked: list[object] = []

    def verify_request(server: Any, request: Any, client_address: Any) -> bool:
        asked.append(request)
        if hook == "verify_request" and len(asked) == 2:
            raise error
        return True

    def service_actions(server: Any) -> None:
        if hook == "service_actions" and asked:
            raise error

    server = make_server(
        lambda handler: handler.rfile.readline(),
        request_queue_size=16,
        verify_request=verify_request,
        service_actions=service_actions,
    )
    server.subscribe(recorder)
    clients = [make_client(server) for _ in range(8)]
    for client in clients:
        client.send(b"ping\n")
    with pytest.raises(error):
        Background(server.serve_forever, 0.01).result()
    report = server.stop(LIMIT)
    assert (report.unfinished, len(server.connections)) == ((), 0)
    for client in clients[: server._everserve.connections.accepted]:
        with suppress(ConnectionError):  # a Unix socket that is closed with unread bytes
            client.end()
    assert_balanced(recorder)


def assert_balanced(recorder: EventRecorder) -> None:
    """Each connection was refused, or was opened and has ended once."""
    names: dict[int, list[str]] = {}
    for event in recorder.events:
        if hasattr(event, "connection"):
            names.setdefault(event.connection, []).append(type(event).__name__)
    for order in names.values():
        assert order[0] == "Accepted"
        assert order[1:] == ["Refused"] or order[1:] in (
            ["Opened", "Finished"],
            ["Opened", "Failed"],
        )


@pytest.mark.usefixtures("concurrent")
def test_a_run_that_begins_while_the_last_one_lingers(
    held: Any, make_client: MakeClient, gate: Gate, stream: Transport
) -> None:
    first = Background(held.serve_forever)
    clients = [make_client(held)]
    clients[0].send(b"ping\n")
    gate.wait_entered()
    held.shutdown()  # its request goes on, with fibers on the thread of the first run
    second = Background(held.serve_forever)
    clients.append(make_client(held))
    clients[1].send(b"ping\n")
    gate.wait_entered()
    gate.open(2)
    for client in clients:
        assert client.receive() == b"serving\n"
    first.result()
    assert held.state is ServerState.SERVING
    assert make_client_again(make_client, held, gate) == b"serving\n"
    held.shutdown()
    second.result()


def make_client_again(make_client: MakeClient, server: Any, gate: Gate) -> bytes:
    client = make_client(server)
    client.send(b"ping\n")
    gate.wait_entered()
    gate.open()
    answer: bytes = client.receive()
    return answer
