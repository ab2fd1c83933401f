"""Sessions: every strategy that has them, over every transport of datagrams."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from tests.clients import LIMIT
from tests.contract.kinds import STRATEGIES, TRANSPORTS, Client, Transport
from tests.scenes import EventRecorder

import everserve
from everserve import fibers
from everserve.combos import server_class
from everserve.errors import HandlerError, OptionError
from everserve.events import (
    DeadlineMissed,
    Finished,
    Opened,
    Refused,
    RepliesWithheld,
    SessionOverflowed,
    Truncated,
)

Handler = everserve.DatagramSessionHandler
CONCURRENCY = ("threads", "pool", "fibers")


class Count(Handler):
    """Answers each datagram with its number in the session."""

    def handle(self) -> None:
        for number, datagram in enumerate(self.datagrams, 1):
            if datagram == b"bye":
                return
            self.send(b"%d %s" % (number, datagram))


@pytest.fixture(params=CONCURRENCY)
def concurrency(request: Any) -> Any:
    return request.param


@pytest.fixture(params=[t for t in TRANSPORTS if not t.is_stream], ids=lambda t: t.name)
def datagrams(request: Any) -> Any:
    return request.param


class Scene:
    """A server with sessions, and its clients."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack, self._folder = stack, folder
        self.recorder = EventRecorder()
        self._clients = 0

    def serve(self, handler: Any, concurrency: str, transport: Transport, **attributes: Any) -> Any:
        base = server_class(concurrency, transport.scheme, sessions=True)
        kind = type("Sessions", (base,), attributes)
        self.transport = transport
        self.server: Any = kind(transport.address(self._folder), handler)
        self.server.subscribe(self.recorder)
        self._stack.enter_context(self.server.running(grace=LIMIT))
        return self.server

    def client(self) -> Client:
        self._clients += 1
        client = Client(self.server, self.transport, self._folder, self._clients)
        return self._stack.enter_context(client)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(stack, tmp_path)


UDP = next(t for t in TRANSPORTS if t.name == "udp4")


def test_each_peer_has_a_handler_of_its_own(
    scene: Scene, concurrency: str, datagrams: Transport
) -> None:
    server = scene.serve(Count, concurrency, datagrams)
    one, other = scene.client(), scene.client()
    assert [one.ask(b"a"), one.ask(b"b")] == [b"1 a", b"2 b"]
    assert other.ask(b"c") == b"1 c"
    assert one.ask(b"d") == b"3 d"
    assert len(server.connections) == 2
    assert {c.peer for c in server.connections} == {one.name, other.name}
    one.send(b"bye")
    scene.recorder.wait_for(Finished)
    assert one.ask(b"e") == b"1 e"  # another session
    server.stop(LIMIT)
    assert len(scene.recorder.of(Opened)) == len(scene.recorder.of(Finished)) == 3
    assert server.refusals == {}


def test_what_comes_together_stays_in_order(
    scene: Scene, concurrency: str, datagrams: Transport
) -> None:
    scene.serve(Count, concurrency, datagrams)
    client = scene.client()
    for number in range(1, 9):  # unix(7): no more than 10 wait by default
        client.send(b"%d" % number)
    assert [client.receive() for _ in range(8)] == [b"%d %d" % (n, n) for n in range(1, 9)]


def test_it_ends_when_its_peer_is_silent(scene: Scene, concurrency: str) -> None:
    scene.serve(Count, concurrency, UDP, idle_timeout=0.05)
    client = scene.client()
    assert client.ask(b"a") == b"1 a"
    (missed,) = scene.recorder.wait_for(DeadlineMissed)
    assert (missed.deadline, missed.is_cut, missed.peer) == ("idle_timeout", True, client.name)
    scene.recorder.wait_for(Finished)
    assert client.ask(b"b") == b"1 b"


def test_a_stop_lets_the_handler_read_what_has_come(scene: Scene, concurrency: str) -> None:
    entered, go_on, read = threading.Event(), threading.Event(), []

    class Slow(Handler):
        def handle(self) -> None:
            entered.set()
            fibers.offload(go_on.wait, LIMIT)
            read.extend(self.datagrams)

    server = scene.serve(Slow, concurrency, UDP)
    client = scene.client()
    client.send(b"1")
    assert entered.wait(LIMIT)
    client.send(b"2")
    stopping = threading.Thread(target=server.stop, args=(LIMIT,))
    stopping.start()
    go_on.set()
    stopping.join(LIMIT)
    assert read == [b"1", b"2"]
    assert len(server.connections) == 0


def test_a_shutdown_ends_sessions_too(scene: Scene, concurrency: str) -> None:
    server = scene.serve(Count, concurrency, UDP)
    assert scene.client().ask(b"a") == b"1 a"
    server.shutdown()
    scene.recorder.wait_for(Finished)


def test_a_stop_without_grace_cuts(scene: Scene, concurrency: str) -> None:
    held = threading.Event()

    class Deaf(Handler):
        def handle(self) -> None:
            for _ in self.datagrams:
                held.set()

    server = scene.serve(Deaf, concurrency, UDP)
    scene.client().send(b"a")
    assert held.wait(LIMIT)
    report = server.stop(0)
    assert report.unfinished == ()
    scene.recorder.wait_for(Finished)


def test_the_number_of_sessions_is_bounded(scene: Scene, concurrency: str) -> None:
    """The datagrams of further peers are dropped; the open sessions go on."""
    server = scene.serve(Count, concurrency, UDP, max_connections=1)
    first, second = scene.client(), scene.client()
    assert first.ask(b"a") == b"1 a"
    second.send(b"b")
    (refused,) = scene.recorder.wait_for(Refused)
    assert (refused.peer, refused.reason) == (second.name, "max_connections")
    assert first.ask(b"c") == b"2 c"
    assert server.refusals == {"max_connections": 1}


def test_without_a_limit_there_is_a_bound(
    scene: Scene, concurrency: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address may be forged: a flood must not make ever more threads or fibers."""
    monkeypatch.setattr("everserve.server.acceptor.MOST_SESSIONS", 2)
    server = scene.serve(Count, concurrency, UDP)
    clients = [scene.client() for _ in range(3)]
    assert [client.ask(b"a") for client in clients[:2]] == [b"1 a", b"1 a"]
    clients[2].send(b"a")
    scene.recorder.wait_for(Refused)
    assert len(server.connections) == 2


def test_a_session_holds_a_worker_of_a_pool(scene: Scene) -> None:
    scene.serve(Count, "pool", UDP, max_workers=1)
    first, second = scene.client(), scene.client()
    assert first.ask(b"a") == b"1 a"
    second.send(b"b")
    scene.recorder.wait_for(Refused)
    assert first.ask(b"c") == b"2 c"


@pytest.mark.parametrize(("drops", "kept"), [("newest", b"123"), ("oldest", b"178")])
def test_what_waits_is_bounded(scene: Scene, concurrency: str, drops: str, kept: bytes) -> None:
    entered, go_on = threading.Event(), threading.Event()
    taken: SimpleQueue[bytes] = SimpleQueue()

    class Slow(Handler):
        def handle(self) -> None:
            for datagram in self.datagrams:
                taken.put(datagram)
                entered.set()
                fibers.offload(go_on.wait, LIMIT)

    server = scene.serve(Slow, concurrency, UDP, peer_queue=2, peer_queue_drops=drops)
    client = scene.client()
    client.send(b"1")
    assert entered.wait(LIMIT)
    for number in range(2, 9):
        client.send(b"%d" % number)
    while server.refusals.get("peer_queue", 0) < 5:  # the loop has seen them all, or soon will
        fibers.sleep(0.001)
    go_on.set()
    assert b"".join(taken.get(timeout=LIMIT) for _ in range(3)) == kept
    (dropped,) = scene.recorder.wait_for(SessionOverflowed)
    assert dropped.peer == client.name
    assert server.refusals == {"peer_queue": 5}


def test_what_a_handler_leaves_is_counted(scene: Scene, concurrency: str) -> None:
    entered, go_on = threading.Event(), threading.Event()

    class One(Handler):
        def handle(self) -> None:
            entered.set()
            fibers.offload(go_on.wait, LIMIT)
            next(self.datagrams)

    server = scene.serve(One, concurrency, UDP)
    client = scene.client()
    client.send(b"1")
    assert entered.wait(LIMIT)
    client.send(b"2")
    probe = scene.client()
    probe.send(b"3")
    scene.recorder.wait_for(Opened, 2)  # the loop has seen all that came before
    go_on.set()
    scene.recorder.wait_for(Finished, 2)
    assert server.refusals == {"unread": 1}


def test_an_unvalidated_peer_gets_no_more_than_the_budget(scene: Scene, concurrency: str) -> None:
    class Greedy(Handler):
        def handle(self) -> None:
            for datagram in self.datagrams:
                if datagram == b"token":
                    self.validate()
                sent = self.send(b"x" * 100)
                self.send(b"%d%d" % (sent, self.validated))

    server = scene.serve(Greedy, concurrency, UDP, reply_budget=3.0)
    client = scene.client()
    assert client.ask(b"a") == b"00"
    assert client.ask(b"token") == b"x" * 100
    assert client.receive() == b"11"
    (withheld,) = scene.recorder.of(RepliesWithheld)
    assert withheld.peer == client.name
    assert server.refusals == {"reply_budget": 1}


def test_each_datagram_that_is_cut_is_flagged(scene: Scene, concurrency: str) -> None:
    class Tell(Handler):
        def handle(self) -> None:
            for datagram in self.datagrams:
                self.send(b"%s %d" % (datagram, self.truncated))

    scene.serve(Tell, concurrency, UDP, max_packet_size=3)
    client = scene.client()
    assert client.ask(b"12") == b"12 0"
    assert client.ask(b"1234") == b"123 1"
    assert len(scene.recorder.wait_for(Truncated)) == 1


def test_senders_without_an_address_share_no_session(
    scene: Scene, concurrency: str, tmp_path: Path
) -> None:
    taken: SimpleQueue[list[bytes]] = SimpleQueue()

    class Take(Handler):
        def handle(self) -> None:
            taken.put(list(self.datagrams))

    unix = next(t for t in TRANSPORTS if t.name == "unixgram")
    server = scene.serve(Take, concurrency, unix)
    for data in (b"1", b"2"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.sendto(data, server.server_address)
    assert sorted(taken.get(timeout=LIMIT) for _ in range(2)) == [[b"1"], [b"2"]]


def test_handle_request_takes_one_datagram(concurrency: str) -> None:
    """No accept loop runs, so that no more would come."""
    with server_class(concurrency, "udp", sessions=True)(("127.0.0.1", 0), Count) as server:
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(LIMIT)
            client.connect(server.server_address)
            for data in (b"a", b"b"):
                client.send(data)
                server.handle_request()
                assert client.recv(100) == b"1 " + data


def test_it_is_served_by_its_handler_alone(concurrency: Any) -> None:
    """``serve`` takes a server with sessions for such a handler, with a budget for replies."""
    with everserve.make_server(Count, "udp://127.0.0.1:0", concurrency=concurrency) as server:
        assert isinstance(server, everserve.DatagramSessionMixIn)
        assert server.reply_budget == 3.0
        assert server.max_connections == (None if concurrency == "pool" else 10_000)
    with everserve.make_server(
        Count, "udp://127.0.0.1:0", concurrency=concurrency, idle_timeout=5, reply_budget=None
    ) as server:
        assert (server.idle_timeout, server.reply_budget) == (5, None)  # type: ignore[attr-defined]


# -- what cannot have sessions -----------------------------------------------------------------


@pytest.mark.parametrize("name", [s.name for s in STRATEGIES if s.name not in CONCURRENCY])
def test_strategies_that_have_none(name: Any) -> None:
    with pytest.raises(OptionError, match="sessions need one of"):
        everserve.make_server(Count, "udp://127.0.0.1:0", concurrency=name)
    bases = (everserve.DatagramSessionMixIn, server_class(name, "udp"))
    with pytest.raises(OptionError, match="sessions need threads, a pool or fibers"):
        type("Sessions", bases, {})(("127.0.0.1", 0), Count)


def test_a_proxy_would_be_one_peer() -> None:
    with pytest.raises(OptionError, match="proxy_protocol has no meaning for sessions"):
        everserve.make_server(
            Count, "udp://127.0.0.1:0", proxy_protocol=True, trusted_proxies="127.0.0.1"
        )


def test_a_handler_of_sessions_on_a_server_without() -> None:
    with pytest.raises(HandlerError, match="needs a server with sessions"):
        Count((b"data", None), "peer", None)
    with pytest.raises(HandlerError, match="for streams inherit StreamRequestHandler"):
        everserve.make_server(Count, "tcp://127.0.0.1:0")


def test_idle_timeout_has_a_meaning_for_sessions_alone() -> None:
    with pytest.raises(OptionError, match="idle_timeout has no meaning"):
        everserve.make_server(everserve.DatagramRequestHandler, "udp://127.0.0.1:0", idle_timeout=5)
