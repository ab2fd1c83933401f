"""``lifecycle.progress``: the entry, the counts and the events of a connection change together."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from tests.scenes import EventRecorder

from everserve.admission.control import AdmissionControl
from everserve.errors import RemoteError
from everserve.events import (
    Accepted,
    DeadlineMissed,
    Failed,
    Finished,
    Opened,
    Refused,
    Shed,
)
from everserve.lifecycle.connection import Connection
from everserve.lifecycle.connections import ConnectionTable
from everserve.lifecycle.emitter import Emitter
from everserve.lifecycle.outcome import Outcome
from everserve.lifecycle.progress import Progress
from everserve.lifecycle.stages import ConnectionState
from everserve.lifecycle.state import LifeCycle
from everserve.sockets.tcpinfo import Traffic

pytestmark = pytest.mark.usefixtures("each_engine")

PEER = ("192.0.2.7", 4711)
RUNNER = 7


def here() -> int:
    return RUNNER


class Parts:
    """A ``Progress``, the objects that it uses, and the events that it emits."""

    def __init__(self) -> None:
        self.connections = ConnectionTable()
        self.control = AdmissionControl()
        self.emitter = Emitter()
        self.life = LifeCycle()
        self.recorder = EventRecorder()
        self.woken = 0
        self.life.wakeup().wake = self._wake  # type: ignore[method-assign]
        self.progress = Progress(self.connections, self.control, self.emitter, self.life)

    def _wake(self) -> None:
        self.woken += 1


@pytest.fixture(params=[True, False], ids=["subscribed", "unsubscribed"])
def parts(request: pytest.FixtureRequest) -> Parts:
    """With a subscriber, and without: the counts are the same."""
    parts = Parts()
    if request.param:
        parts.emitter.subscribe(parts.recorder)
    return parts


@pytest.fixture
def recorded_parts() -> Parts:
    parts = Parts()
    parts.emitter.subscribe(parts.recorder)
    return parts


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, peers = socket.socketpair()
    with ours, peers:
        yield ours, peers


def emitted(parts: Parts, *names: str) -> bool:
    """True if those are the events so far, or if there is no subscriber."""
    return not parts.emitter.subscribers or parts.recorder.names() == list(names)


def accept(parts: Parts, request: Any = "request") -> Connection:
    connection = parts.progress.accepted(request, PEER)
    assert connection is not None
    return connection


def opened(parts: Parts) -> Connection:
    connection = accept(parts)
    assert parts.progress.opened(connection, PEER, here)
    return connection


def test_a_request_without_errors(parts: Parts) -> None:
    connection = accept(parts)
    assert list(parts.connections.view) == [connection]
    parts.progress.opened(connection, PEER, here)
    assert (connection.runner, connection.state) == (RUNNER, ConnectionState.HANDLING)
    parts.progress.ended(connection)
    parts.progress.ended(connection)
    assert (len(parts.connections), connection.state) == (0, ConnectionState.CLOSED)
    assert emitted(parts, "Accepted", "Opened", "Finished")


def test_each_event_has_the_number_and_the_peer(recorded_parts: Parts) -> None:
    connection = accept(recorded_parts)
    recorded_parts.progress.opened(connection, "client", here)
    recorded_parts.progress.ended(connection)
    accepted, opened, finished = recorded_parts.recorder.events
    assert (accepted, opened) == (Accepted(1, PEER), Opened(1, "client"))
    assert isinstance(finished, Finished)
    assert (finished.connection, finished.peer) == (1, PEER)
    assert finished.seconds >= 0


def test_a_request_without_an_entry_is_reported_nowhere(parts: Parts) -> None:
    accept(parts)
    assert parts.progress.accepted("request", PEER) is None
    before = parts.recorder.names()
    progress = parts.progress
    progress.failed(None, "request", ValueError())
    progress.deadline_missed(None, "idle_timeout")
    progress.handshake_started(None)
    progress.handshake_done(None)
    progress.ended(None)
    assert parts.recorder.names() == before
    progress.refused(None, "access")
    assert parts.control.refusals == {"access": 1}  # but counted
    assert (parts.recorder.names(), parts.woken) == (before, 0)


def test_a_refusal_is_counted_and_is_the_end(recorded_parts: Parts) -> None:
    connection = accept(recorded_parts)
    error = ValueError("no header")
    recorded_parts.progress.refused(connection, "proxy", error)
    recorded_parts.progress.failed(connection, None, error)
    recorded_parts.progress.ended(connection)
    assert recorded_parts.recorder.events == [Accepted(1, PEER), Refused(1, PEER, "proxy", error)]
    assert recorded_parts.control.refusals == {"proxy": 1}


def test_a_failure_is_reported_once(recorded_parts: Parts) -> None:
    connection = opened(recorded_parts)
    first, second = ValueError("first"), ValueError("second")
    recorded_parts.progress.failed(connection, "request", first)
    recorded_parts.progress.failed(connection, "request", second)
    recorded_parts.progress.ended(connection)
    assert recorded_parts.recorder.events[2:] == [Failed(1, PEER, first, False)]


@pytest.mark.parametrize("gone", [True, False, None])
def test_it_finds_out_whether_the_peer_has_disconnected_unless_known(
    recorded_parts: Parts, pair: Any, gone: bool | None
) -> None:
    ours, peers = pair
    connection = accept(recorded_parts, ours)
    peers.close()
    recorded_parts.progress.failed(connection, ours, BrokenPipeError(), gone)
    (failed,) = recorded_parts.recorder.of(Failed)
    assert failed.peer_gone is (gone is not False)


def test_a_missed_deadline_cuts(recorded_parts: Parts, pair: Any) -> None:
    ours, peers = pair
    connection = accept(recorded_parts, ours)
    for name in ("idle_timeout", "request_timeout"):  # the second does not count
        recorded_parts.progress.deadline_missed(connection, name)
    assert connection.missed == "idle_timeout"
    assert peers.recv(1) == b""
    assert recorded_parts.recorder.of(DeadlineMissed) == [DeadlineMissed(1, PEER, "idle_timeout")]


def test_a_connection_that_has_ended_misses_nothing(parts: Parts) -> None:
    connection = accept(parts)
    parts.progress.ended(connection)
    parts.progress.deadline_missed(connection, "idle_timeout")
    assert connection.missed is None
    assert emitted(parts, "Accepted", "Opened", "Finished")


def test_room_is_made_by_a_cut(recorded_parts: Parts, pair: Any) -> None:
    ours, peers = pair
    connection = accept(recorded_parts, ours)
    connection.counter = SimpleNamespace(traffic=lambda: Traffic(3.0, 0, 0, False))
    assert recorded_parts.progress.make_room("new", PEER) is True
    assert peers.recv(1) == b""
    assert recorded_parts.recorder.of(Shed) == [Shed(1, PEER)]
    assert recorded_parts.progress.make_room("new", PEER) is False


def test_a_handshake(parts: Parts) -> None:
    connection = accept(parts)
    parts.progress.handshake_started(connection)
    parts.progress.handshake_started(connection)
    assert parts.control.handshakes == 1
    parts.progress.handshake_done(connection)
    assert (parts.control.handshakes, parts.woken) == (0, 0)  # without a limit nothing waits


LIMITED: Any = SimpleNamespace(
    overload="wait",
    header_first=False,
    max_connections_per_peer=1,
    handshakes_first=True,
    max_handshakes=1,
)


@pytest.mark.parametrize("step", ["handshake_done", "opened"])
def test_an_accept_loop_that_may_wait_for_a_handshake_is_woken(parts: Parts, step: str) -> None:
    connection = accept(parts)
    parts.control.enter(LIMITED, connection)
    if step == "opened":  # without a handshake: a custom step did it, for example
        parts.progress.opened(connection, PEER, here)
    else:
        parts.progress.handshake_done(connection)
    assert (parts.control.handshakes, parts.woken) == (0, 1)


def test_a_child_reports_the_end_of_a_handshake(parts: Parts) -> None:
    reports: list[bool] = []
    parts.progress.on_handshake_done = lambda: reports.append(True)
    parts.progress.handshake_done(None)
    parts.progress.handshake_done(accept(parts))
    assert reports == [True, True]


def test_an_end_is_no_longer_counted(parts: Parts) -> None:
    connection = accept(parts)
    parts.control.enter(LIMITED, connection)
    connection.peer = "the proxy's client"
    parts.progress.ended(connection)
    assert (parts.control.handshakes, len(parts.control.peers)) == (0, 0)


def test_an_end_wakes_waiters(parts: Parts) -> None:
    first, second = accept(parts, "first"), accept(parts, "second")
    notified: list[bool] = []
    parts.life.notifier.waiters.append(SimpleNamespace(put=lambda item: notified.append(True)))
    parts.progress.ended(first)
    assert (parts.woken, notified) == (0, [True])
    parts.life.gated = True
    parts.progress.ended(second)
    parts.progress.ended(second)
    assert (parts.woken, notified) == (1, [True, True])


def test_a_connection_that_a_process_holds_has_not_ended(parts: Parts) -> None:
    connection = accept(parts)
    parts.connections.hold("request", 4711)
    parts.progress.ended(connection)
    assert emitted(parts, "Accepted")
    parts.progress.ended(parts.connections.release(4711))
    assert emitted(parts, "Accepted", "Opened", "Finished")


def test_a_connection_that_ended_without_the_hooks_is_finished(parts: Parts, pair: Any) -> None:
    ours, _ = pair
    accept(parts, ours)
    again = socket.socket(fileno=ours.detach())
    with again:
        accept(parts, again)
        assert len(parts.connections) == 1
        names = ["Accepted", "Accepted", "Finished", "Opened"]
        assert sorted(parts.recorder.names()) in ([], names)


# -- in another process --------------------------------------------------------------------------


def test_a_connection_that_opened_elsewhere(recorded_parts: Parts) -> None:
    connection = accept(recorded_parts)
    recorded_parts.progress.opened_elsewhere(connection, "client")
    assert connection.peer == "client"
    assert recorded_parts.recorder.of(Opened) == [Opened(1, "client")]


@pytest.mark.parametrize(
    ("outcome", "names"),
    [
        (Outcome(), ["Opened", "Finished"]),
        (Outcome(missed="idle_timeout"), ["DeadlineMissed", "Opened", "Finished"]),
        (Outcome(refused="proxy", error="no header"), ["Refused"]),
        (Outcome(missed="handshake_timeout", refused="tls"), ["DeadlineMissed", "Refused"]),
        (Outcome(failed=True, error="ValueError()", peer_gone=True), ["Opened", "Failed"]),
        (Outcome(failed=True), ["Opened", "Failed"]),
    ],
)
def test_how_a_request_ended_elsewhere(
    recorded_parts: Parts, outcome: Outcome, names: list[str]
) -> None:
    connection = accept(recorded_parts)
    recorded_parts.progress.ended_elsewhere(connection, outcome)
    recorded_parts.progress.ended(connection)
    assert recorded_parts.recorder.names() == ["Accepted", *names]
    for refused in recorded_parts.recorder.of(Refused):
        assert (refused.error is None) is (not outcome.error)
    for failed in recorded_parts.recorder.of(Failed):
        assert isinstance(failed.error, RemoteError)
        assert str(failed.error) == (outcome.error or "unknown")
        assert failed.peer_gone is outcome.peer_gone


# -- the order of events, whichever thread is first ------------------------------------------------


def test_a_request_that_was_refused_meanwhile_is_not_opened(recorded_parts: Parts) -> None:
    """As where a thread runs although its start has failed."""
    connection, error = accept(recorded_parts), MemoryError()
    recorded_parts.progress.refused(connection, "error", error)
    assert not recorded_parts.progress.opened(connection, PEER, here)
    recorded_parts.progress.ended(connection)
    assert recorded_parts.recorder.names() == ["Accepted", "Refused"]


def test_a_refusal_after_the_beginning_is_a_failure(recorded_parts: Parts) -> None:
    """As where a handler raises ``Refusal``."""
    connection = opened(recorded_parts)
    recorded_parts.progress.refused(connection, "access")
    recorded_parts.progress.ended(connection)
    assert recorded_parts.recorder.names() == ["Accepted", "Opened", "Failed"]
    assert not recorded_parts.control.refusals


def test_a_second_beginning_is_not_reported(recorded_parts: Parts) -> None:
    """As where ``get_request`` returns the same object again and again."""
    connection = opened(recorded_parts)
    assert recorded_parts.progress.opened(connection, PEER, here)
    recorded_parts.progress.opened_elsewhere(connection, PEER)
    assert recorded_parts.recorder.names() == ["Accepted", "Opened"]
