"""``server.datagramaccount``: a batch with limits and subscribers is as its datagrams one by one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from contextvars import ContextVar
from typing import Any

import pytest
from tests.clients import LIMIT
from tests.scenes import LOOPBACK, EventRecorder

from everserve import fibers
from everserve.admission.access import AccessRules
from everserve.combos import FiberUDPServer
from everserve.events import Accepted, DeadlineMissed, Failed, Finished, Opened, Refused
from everserve.handlers.base import BaseRequestHandler
from everserve.lifecycle.stages import ConnectionState
from everserve.server.udp import UDPServer


def echo(handler: Any) -> None:
    data, sock = handler.request
    sock.sendto(data, handler.client_address)


@pytest.fixture(params=[UDPServer, FiberUDPServer])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def make() -> Iterator[Callable[..., Any]]:
    """``make(kind, handle, **attributes)``: a server that does not serve yet, and who sends to it."""
    with ExitStack() as stack:

        def make(kind: Any, handle: Any = echo, **attributes: Any) -> Any:
            handler = type("UnderTest", (BaseRequestHandler,), {"handle": handle})
            server = stack.enter_context(type("Server", (kind,), attributes)(LOOPBACK, handler))
            client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            client.settimeout(LIMIT)
            client.connect(server.server_address)
            return server, client

        yield make


def record(server: Any) -> EventRecorder:
    recorder = EventRecorder()
    server.subscribe(recorder)
    return recorder


def story(recorder: EventRecorder) -> list[tuple[int, str]]:
    """What was emitted of each connection, by number."""
    told: dict[int, list[str]] = {}
    for event in recorder.events:
        if hasattr(event, "connection"):
            told.setdefault(event.connection, []).append(type(event).__name__)
    return [(number, " ".join(names)) for number, names in sorted(told.items())]


def test_the_events_of_a_batch(make: Any, kind: Any) -> None:
    server, client = make(kind)
    recorder = record(server)
    for number in range(3):
        client.send(b"%d" % number)
    with server.running():
        assert [client.recv(100) for _ in range(3)] == [b"0", b"1", b"2"]
    assert story(recorder) == [(n, "Accepted Opened Finished") for n in (1, 2, 3)]
    assert {event.peer for event in recorder.of(Opened)} == {client.getsockname()}
    assert {event.server for event in recorder.of(Accepted)} == {recorder.of(Finished)[0].server}
    assert all(0 <= event.seconds < LIMIT for event in recorder.of(Finished))


def test_what_a_handler_raises_is_emitted(make: Any, kind: Any) -> None:
    def handle(handler: Any) -> None:
        if handler.request[0] == b"bad":
            raise ValueError("bad")
        echo(handler)

    server, client = make(kind, handle, handle_error=lambda self, request, peer: None)
    recorder = record(server)
    for message in (b"bad", b"good", b"bad", b"end"):
        client.send(message)
    with server.running():
        assert [client.recv(100) for _ in range(2)] == [b"good", b"end"]
    assert story(recorder) == [
        (1, "Accepted Opened Failed"),
        (2, "Accepted Opened Finished"),
        (3, "Accepted Opened Failed"),
        (4, "Accepted Opened Finished"),
    ]
    assert [str(event.error) for event in recorder.of(Failed)] == ["bad", "bad"]


@pytest.mark.parametrize(
    ("options", "reason", "admitted"),
    [
        ({"accept_rate": 1e-3, "accept_burst": 2, "overload": "refuse"}, "accept_rate", 2),
        ({"accept_rate_per_peer": 2.0}, "accept_rate_per_peer", 2),
        ({"access": AccessRules.parse("deny 127.0.0.0/8")}, "access", 0),
        ({"access": AccessRules.parse("allow 127.0.0.0/8"), "accept_rate": 1e6}, "", 5),
        ({"max_connections": 1, "overload": "refuse"}, "", 5),
        ({"max_connections_per_peer": 1}, "", 5),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else str(value),
)
@pytest.mark.parametrize("subscribes", [True, False])
def test_limits(
    make: Any, kind: Any, options: Any, reason: str, admitted: int, subscribes: bool
) -> None:
    handled: list[bytes] = []
    ended = threading.Event()

    def handle(handler: Any) -> None:
        handled.append(handler.request[0])

    def serviced(server: Any) -> None:
        if sum(server.refusals.values()) + len(handled) == 5:
            ended.set()

    server, client = make(kind, handle, service_actions=serviced, **options)
    recorder = record(server) if subscribes else EventRecorder()
    for number in range(5):
        client.send(b"%d" % number)
    with server.running(poll_interval=0.01):
        assert ended.wait(LIMIT)
    assert handled == [b"%d" % number for number in range(admitted)]
    assert dict(server.refusals) == ({reason: 5 - admitted} if reason else {})
    assert len(recorder.of(Refused)) == (5 - admitted if subscribes else 0)
    assert len(recorder.of(Finished)) == (admitted if subscribes else 0)


def test_what_a_handler_changes_counts_from_the_next(make: Any, kind: Any) -> None:
    def handle(handler: Any) -> None:
        echo(handler)
        if handler.request[0] == b"deny":
            handler.server.access = AccessRules.parse("deny 127.0.0.0/8")

    server, client = make(kind, handle, access=None, request_timeout=LIMIT)
    recorder = record(server)
    for message in (b"1", b"deny", b"2"):
        client.send(message)
    with server.running():
        assert [client.recv(100) for _ in range(2)] == [b"1", b"deny"]
        recorder.wait_for(Refused)
    assert server.refusals == {"access": 1}


@pytest.mark.parametrize(
    "options",
    [{"max_connections": 2, "overload": "refuse"}, {"max_connections_per_peer": 2}],
    ids=lambda options: "-".join(options),
)
def test_handlers_that_wait_are_counted(make: Any, options: Any) -> None:
    released = fibers.Event()

    def handle(handler: Any) -> None:
        released.wait(LIMIT)
        echo(handler)

    server, client = make(FiberUDPServer, handle, **options)
    recorder = record(server)
    for number in range(4):
        client.send(b"%d" % number)
    with server.running():
        recorder.wait_for(Refused, 2)
        assert [c.id for c in server.connections] == [1, 2]
        server._everserve.strategy._hub.call_from_thread(released.set)
        assert [client.recv(100) for _ in range(2)] == [b"0", b"1"]
        recorder.wait_for(Finished, 2)
        client.send(b"4")  # their places are free again
        assert client.recv(100) == b"4"
    assert len(server._everserve.control.peers) == 0


def test_a_deadline_is_missed_and_the_handler_can_read_it(make: Any, kind: Any) -> None:
    recorder = EventRecorder()
    seen: list[Any] = []

    def handle(handler: Any) -> None:
        if handler.request[0] == b"slow":
            waits = fibers.offload if kind is FiberUDPServer else lambda function: function()
            waits(lambda: recorder.wait_for(DeadlineMissed))
            seen.append((handler.cancelled, handler.deadline is not None))
        echo(handler)

    server, client = make(kind, handle, request_timeout=0.05)
    server.subscribe(recorder)
    for message in (b"quick", b"slow"):
        client.send(message)
    with server.running():
        assert [client.recv(100) for _ in range(2)] == [b"quick", b"slow"]
    assert story(recorder) == [
        (1, "Accepted Opened Finished"),
        (2, "Accepted Opened DeadlineMissed Finished"),
    ]
    ((cancelled, has_deadline),) = seen
    assert cancelled
    assert has_deadline
    (missed,) = recorder.of(DeadlineMissed)
    assert (missed.deadline, missed.is_cut) == ("request_timeout", False)


VALUE: ContextVar[Any] = ContextVar("VALUE", default=None)


def test_what_a_subscriber_sets_is_there_for_the_handler_alone(make: Any, kind: Any) -> None:
    def handle(handler: Any) -> None:
        _, sock = handler.request
        sock.sendto(b"%d" % VALUE.get(), handler.client_address)

    server, client = make(kind, handle)
    server.subscribe(
        lambda event: VALUE.set(event.connection) if isinstance(event, Opened) else None
    )
    client.send(b"a")
    client.send(b"b")
    with server.running():
        assert [client.recv(100) for _ in range(2)] == [b"1", b"2"]
    assert VALUE.get() is None


def test_who_looks_finds_the_datagram_at_each_event(make: Any, kind: Any) -> None:
    server, client = make(kind)
    looks: list[Any] = []

    def look(event: Any) -> None:
        if hasattr(event, "connection"):
            found = [(c.id, c.state) for c in server.connections if c.id == event.connection]
            looks.append((type(event), found))

    server.subscribe(look)
    client.send(b"a")
    client.send(b"b")
    with server.running():
        assert [client.recv(100) for _ in range(2)] == [b"a", b"b"]
    assert looks == [
        (event, [(number, state)] if state else [])
        for number in (1, 2)
        for event, state in (
            (Accepted, ConnectionState.ACCEPTED),
            (Opened, ConnectionState.HANDLING),
            (Finished, None),
        )
    ]


def test_a_subscriber_that_comes_while_a_handler_runs(make: Any, kind: Any) -> None:
    recorder = EventRecorder()

    def handle(handler: Any) -> None:
        if handler.request[0] == b"1":
            handler.server.subscribe(recorder)
        echo(handler)

    server, client = make(kind, handle, request_timeout=LIMIT)
    client.send(b"1")
    client.send(b"2")
    with server.running():
        assert [client.recv(100) for _ in range(2)] == [b"1", b"2"]
    assert [names for _, names in story(recorder)] == [
        "Opened Finished",
        "Accepted Opened Finished",
    ]


def test_what_ends_the_run_refuses_the_rest_of_the_batch(make: Any) -> None:
    def handle(handler: Any) -> None:
        raise KeyboardInterrupt

    server, client = make(UDPServer, handle)
    recorder = record(server)
    for number in range(3):
        client.send(b"%d" % number)
    with pytest.raises(KeyboardInterrupt):
        server.serve_forever()
    assert story(recorder) == [
        (1, "Accepted Opened Failed"),
        (2, "Accepted Refused"),
        (3, "Accepted Refused"),
    ]
    assert server.refusals == {"stopped": 2}
    assert len(server.connections) == 0


def test_what_is_cut_is_reported_once_it_is_admitted(make: Any, kind: Any) -> None:
    server, client = make(kind, max_packet_size=3)
    recorder = record(server)
    client.send(b"12345")
    client.send(b"1")
    with server.running():
        assert [client.recv(100) for _ in range(2)] == [b"123", b"1"]
    names = [type(event).__name__ for event in recorder.events]
    start = names.index("Accepted")
    assert names[start : start + 3] == ["Accepted", "Truncated", "Opened"]
