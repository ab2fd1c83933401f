"""Connections that move to another worker: here both workers are servers of this process."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
import trustme
from tests.clients import LIMIT, Background, connect
from tests.orders import OrderCheck
from tests.process.supervised import until
from tests.scenes import EventRecorder

import everserve
from everserve.events import Arrived, DeadlineMissed, Finished, Moved, Stayed
from everserve.process.channel import Channel
from everserve.process.moving import Answer, Decision, Mover, Offer, Reception, Way


class Counter(everserve.LineRequestHandler[Any, Any]):
    """Answers with the count of lines; what is not for a line is not pickled."""

    handover = True
    place = "old"
    count = 0

    def on_connect(self) -> None:
        self.lock = threading.Lock()
        self.key = self.client_address

    def __getstate__(self) -> Any:
        return {name: value for name, value in super().__getstate__().items() if name != "lock"}

    def on_moved(self) -> None:
        self.lock = threading.Lock()

    def handle_message(self, line: bytes) -> bytes:
        with self.lock:
            self.count += 1
        return b"%s %d %s" % (line, self.count, self.place.encode())


class Later(Counter):
    """The code after a deploy."""

    place = "new"


@pytest.fixture(params=["fibers", "pool"])
def concurrency(request: pytest.FixtureRequest) -> Any:
    return request.param


class Scene:
    """An old group and a new one, which take each other for workers of one server."""

    def __init__(
        self, stack: ExitStack, concurrency: Any, old: Any, new: Any, late: Any, options: Any
    ) -> None:
        self.orders = [OrderCheck(), OrderCheck()]
        self.events = [EventRecorder(), EventRecorder()]
        self.groups = []
        own: Any = ((old, options), (new, options | (late or {})))
        for (handler, chosen), order, recorder in zip(own, self.orders, self.events, strict=True):
            group = everserve.make_group(
                handler, "tcp://127.0.0.1:0", concurrency=concurrency, **chosen
            )
            group.subscribe(order)
            group.subscribe(recorder)
            stack.enter_context(group.running(grace=LIMIT))
            self.groups.append(group)
        self.old, self.new = self.groups
        (self.address,) = self.old.addresses
        self.new.servers[0].server_address = self.address
        self.stack = stack

    def client(self) -> Client:
        return self.stack.enter_context(closing(Client(self.address)))

    def move(self, channel: Channel | None = None, seconds: float = LIMIT) -> Mover:
        """Stop the old one; its connections move to the new one, or over ``channel``."""
        if channel is None:
            channel, other = Channel.pair()
            Reception(self.new, other)
        mover = Mover(self.old, [Way(channel)], seconds)
        self.stack.callback(mover.finish)
        self.stopped = Background(self.old.stop, LIMIT)
        return mover

    def report(self) -> Any:
        """That of the old one."""
        return self.stopped.result()


class Client:
    def __init__(self, address: Any) -> None:
        self.socket = connect(address)
        self.file = self.socket.makefile("rb")

    def ask(self, line: bytes) -> bytes:
        self.socket.sendall(line + b"\n")
        return self.file.readline()

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def begin(concurrency: Any) -> Iterator[Any]:
    """``begin(old, new, late, **options)`` makes a scene; ``late``: options of the new one alone."""
    with ExitStack() as stack:
        scenes: list[Scene] = []

        def make(old: Any = Counter, new: Any = Later, late: Any = None, **options: Any) -> Scene:
            scenes.append(Scene(stack, concurrency, old, new, late, options))
            return scenes[0]

        yield make
    for scene in scenes:
        assert [order.violations for order in scene.orders] == [[], []]


def test_connections_go_on(begin: Any) -> None:
    scene = begin()
    clients = [scene.client() for _ in range(100)]  # more than may be on their way at a time
    for client in clients:
        assert client.ask(b"a") == b"a 1 old\n"
    keys = {client.socket.getsockname() for client in clients}
    mover = scene.move()
    report = scene.report()
    assert (report.moved, report.finished, report.cut, report.unfinished) == (100, 0, (), ())
    assert "100 moved" in str(report)
    assert mover.counts.moved == 100
    for client in clients:
        assert client.ask(b"b") == b"b 2 new\n"
    (server,) = scene.new.servers
    assert keys == {connection.peer for connection in server.connections}
    assert server.connections[clients[0].socket.getsockname()].push(b"pushed")
    assert clients[0].file.readline() == b"pushed\n"
    assert scene.new.accepted() == 0
    assert len(scene.events[0].wait_for(Moved, 100)) == 100
    assert all(event.pause < LIMIT for event in scene.events[1].wait_for(Arrived, 100))
    clients[0].close()
    scene.events[1].wait_for(Finished, 1)


def test_half_a_message_goes_along(begin: Any) -> None:
    scene = begin()
    client = scene.client()
    client.ask(b"a")
    client.socket.sendall(b"half and ")
    connection = next(iter(scene.old.servers[0].connections))
    until(lambda: not connection.conversation.is_between_messages)
    scene.move()
    assert scene.report().moved == 1
    assert client.ask(b"half") == b"half and half 2 new\n"


def test_what_is_pushed_meanwhile_goes_along(begin: Any) -> None:
    scene = begin()
    client = scene.client()
    client.ask(b"a")
    (connection,) = scene.old.servers[0].connections
    channel, other = Channel.pair()
    scene.move(channel)
    offer, descriptors = wait_for_message(other)
    assert connection.push(b"late")
    (number, place, data), (descriptor,) = offer.parcels[0], descriptors
    arrivals, arrival = scene.new.unpack(place, data, descriptor)
    other.send(Answer((number,), ()))
    decision, _ = wait_for_message(other)
    assert decision == Decision(given=((number, b"late\n"),))
    assert not connection.push(b"too late")
    arrival.late = decision.given[0][1]
    arrivals.put([arrival])
    assert client.file.readline() == b"late\n"
    assert client.ask(b"b") == b"b 2 new\n"
    assert scene.report().moved == 1
    other.close()


def wait_for_message(channel: Channel) -> Any:
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    assert poll.poll(1000 * LIMIT)
    return channel.receive()


def test_a_message_in_progress_is_done_first(begin: Any) -> None:
    began, done = threading.Event(), threading.Event()

    class Slow(Counter):
        def handle_message(self, line: bytes) -> bytes:
            if line == b"slow":
                began.set()
                everserve.fibers.offload(done.wait)
            return super().handle_message(line)

    scene = begin(Slow)
    client, other = scene.client(), scene.client()
    other.ask(b"a")
    client.socket.sendall(b"slow\n")
    assert began.wait(LIMIT)
    scene.move()
    scene.events[0].wait_for(Moved, 1)
    done.set()
    assert client.file.readline() == b"slow 1 old\n"
    assert scene.report().moved == 2
    assert client.ask(b"b") == b"b 2 new\n"


def test_what_the_peer_has_not_read_is_sent_first(begin: Any) -> None:
    scene = begin()
    client = scene.client()
    client.ask(b"a")
    (connection,) = scene.old.servers[0].connections
    large = b"x" * (1 << 24)
    assert connection.push(large)
    assert connection.push(b"next")
    scene.move()
    assert client.file.readline() == large + b"\n"
    assert client.file.readline() == b"next\n"
    assert scene.report().moved == 1
    assert client.ask(b"b") == b"b 2 new\n"


class Unpicklable(Counter):
    def __getstate__(self) -> Any:
        return {"lock": self.lock}


class Unwilling(Later):
    def __setstate__(self, state: Any) -> None:
        raise LookupError("not like this")


class Plain(Counter):
    handover = False


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (Unpicklable, Later, "state"),
        (Counter, Unwilling, "state"),
        (Counter, Plain, "handler"),
        (Counter, everserve.StreamRequestHandler, "handler"),
    ],
)
def test_what_cannot_move_drains(
    begin: Any, old: Any, new: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    scene = begin(old, new)
    client = scene.client()
    client.ask(b"a")
    mover = scene.move()
    assert client.file.read() == b""  # an end, not a reset
    report = scene.report()
    assert (report.moved, report.finished, report.cut) == (0, 1, ())
    assert mover.counts.stayed == {reason: 1}
    (stayed,) = scene.events[0].wait_for(Stayed, 1)
    assert stayed.reason == reason
    assert ("not like this" in caplog.text) is (new is Unwilling)
    assert ("_thread.lock" in caplog.text) is (old is Unpicklable)


def test_without_handover_none_moves(begin: Any) -> None:
    scene = begin(Plain)
    client = scene.client()
    client.ask(b"a")
    mover = scene.move()
    assert client.file.read() == b""
    assert scene.report().moved == 0
    assert not mover.counts.stayed
    assert scene.new.moves_connections()
    assert not scene.old.moves_connections()


def test_a_worker_that_dies_has_taken_nothing(begin: Any) -> None:
    scene = begin()
    clients = [scene.client() for _ in range(3)]
    for client in clients:
        client.ask(b"a")
    channel, other = Channel.pair()
    mover = scene.move(channel)
    _, descriptors = wait_for_message(other)
    for descriptor in descriptors:
        socket.socket(fileno=descriptor).close()
    other.close()
    for client in clients:
        assert client.ask(b"b") == b"b 2 old\n"
    replacement, received = Channel.pair()
    Reception(scene.new, received)
    mover.add(Way(replacement))
    assert scene.report().moved == 3
    for client in clients:
        assert client.ask(b"c") == b"c 3 new\n"


def test_without_a_worker_connections_drain_at_the_end(begin: Any) -> None:
    scene = begin()
    client = scene.client()
    client.ask(b"a")
    scene.new.stop(0)  # it refuses them
    mover = scene.move()
    until(lambda: [way.is_closed for way in mover._ways] == [True])
    assert client.ask(b"b") == b"b 2 old\n"
    mover.hurry(0.0)
    assert client.file.read() == b""
    assert scene.report().finished == 1
    assert mover.counts.stayed == {"worker": 1}


def test_another_worker_takes_what_one_has_not(begin: Any) -> None:
    scene = begin()
    client = scene.client()
    client.ask(b"a")
    dying, its_end = Channel.pair()
    other, received = Channel.pair()
    mover = Mover(scene.old, [Way(dying), Way(other, load=1)], LIMIT)
    scene.stack.callback(mover.finish)
    scene.stopped = Background(scene.old.stop, LIMIT)
    _, descriptors = wait_for_message(its_end)
    socket.socket(fileno=descriptors[0]).close()
    its_end.close()
    Reception(scene.new, received)
    assert scene.report().moved == 1
    assert client.ask(b"b") == b"b 2 new\n"


def test_one_that_dies_after_the_answer_leaves_its_connections(begin: Any) -> None:
    scene = begin()
    client = scene.client()
    client.ask(b"a")
    channel, other = Channel.pair()
    mover = scene.move(channel)
    offer, descriptors = wait_for_message(other)
    here, there = Channel.pair()
    Reception(scene.new, there)
    here.send(offer, *descriptors)
    answer, _ = wait_for_message(here)
    assert answer.taken == (offer.parcels[0][0],)
    here.close()  # as the end of a process does
    assert client.ask(b"b") == b"b 2 new\n"
    other.send(answer)
    assert scene.report().moved == 1
    assert mover.counts.moved == 1
    other.close()


def test_none_is_left_between_two_workers_at_the_end(begin: Any) -> None:
    scene = begin()
    client = scene.client()
    client.ask(b"a")
    channel, other = Channel.pair()
    mover = scene.move(channel)
    offer, descriptors = wait_for_message(other)
    mover.hurry(0.0)
    decision, _ = wait_for_message(other)
    assert decision == Decision(kept=(offer.parcels[0][0],))
    socket.socket(fileno=descriptors[0]).close()
    assert client.file.read() == b""
    assert scene.report().finished == 1
    assert mover.counts.stayed == {"busy": 1}
    other.close()


def test_the_deadlines_go_on(begin: Any) -> None:
    scene = begin(request_timeout=3600.0)
    client = scene.client()
    client.ask(b"a")
    (before,) = scene.old.servers[0].connections
    started, ends = before.started, before.deadlines.ends
    scene.move()
    assert scene.report().moved == 1
    assert client.ask(b"b") == b"b 2 new\n"
    (after,) = scene.new.servers[0].connections
    assert (after.started, after.deadlines.ends) == (started, ends)


@pytest.mark.parametrize("deadline", ["request_timeout", "idle_timeout"])
def test_one_is_cut_after_its_move(begin: Any, deadline: str) -> None:
    scene = begin(**{deadline: 3600.0}, late={deadline: 0.1})
    client = scene.client()
    client.ask(b"a")
    scene.move()
    assert scene.report().moved == 1
    scene.events[1].wait_for(Arrived, 1)
    assert client.file.read() == b""
    (missed,) = scene.events[1].wait_for(DeadlineMissed, 1)
    assert missed.deadline == deadline


def test_limits_count_it_and_no_rate_does(begin: Any) -> None:
    scene = begin(max_connections_per_peer=3, accept_rate=2.0, accept_burst=2, overload="reset")
    clients = [scene.client() for _ in range(2)]
    for client in clients:
        client.ask(b"a")
    scene.move()
    assert scene.report().moved == 2
    for client in clients:
        assert client.ask(b"b") == b"b 2 new\n"
    control = scene.new.servers[0]._everserve.control
    assert control.peers.count(clients[0].socket.getsockname()) == 2
    assert control.takes_token(scene.new.servers[0]._everserve.settings.values)
    clients[0].close()
    scene.events[1].wait_for(Finished, 1)
    assert control.peers.count(clients[1].socket.getsockname()) == 1


def test_an_error_of_the_hook_ends_the_connection(begin: Any) -> None:
    class Failing(Later):
        def on_moved(self) -> None:
            raise LookupError("on arrival")

    scene = begin(Counter, Failing)
    client = scene.client()
    client.ask(b"a")
    scene.move()
    assert client.file.read() == b""
    (failed,) = scene.events[1].wait_for(everserve.events.Failed, 1)
    assert isinstance(failed.error, LookupError)
    scene.report()


def test_over_tls_they_drain(begin: Any) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    scene = begin(tls=context)
    plain = connect(scene.address)
    with trusting.wrap_socket(plain, server_hostname="localhost") as client:
        client.sendall(b"a\n")
        assert client.recv(100) == b"a 1 old\n"
        mover = scene.move()
        assert client.recv(100) == b""
    assert scene.report().moved == 0
    assert mover.counts.stayed == {"tls": 1}


@pytest.mark.parametrize("concurrency", ["threads"])
def test_in_threads_they_drain(begin: Any) -> None:
    scene = begin()
    client = scene.client()
    client.ask(b"a")
    mover = scene.move()
    assert client.file.read() == b""
    assert scene.report().finished == 1
    assert mover.counts.stayed == {"strategy": 1}


def test_the_client_behind_a_proxy_is_known(begin: Any) -> None:
    class Whose(Later):
        def handle_message(self, line: bytes) -> bytes:
            proxy: Any = self.peer.proxy
            return f"{self.client_address} {self.key} {proxy.destination}".encode()

    networks = everserve.Networks(["127.0.0.1"])
    scene = begin(Counter, Whose, proxy_protocol=True, trusted_proxies=networks)
    client = scene.client()
    client.socket.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 9999\r\n")
    client.ask(b"a")
    scene.move()
    assert scene.report().moved == 1
    source, destination = ("192.0.2.1", 1111), ("192.0.2.2", 9999)
    assert client.ask(b"b") == f"{source} {source} {destination}\n".encode()
    (connection,) = scene.new.servers[0].connections
    assert connection.peer == source


def test_an_offer_to_one_that_has_no_descriptors_left(begin: Any) -> None:
    scene = begin()
    here, there = Channel.pair()
    Reception(scene.new, there)
    here.send(Offer(((1, "2 ('127.0.0.1', 1)", b""), (2, "", b""))))
    assert wait_for_message(here)[0] == Answer((), ((1, "worker"), (2, "worker")))
    here.close()


@pytest.mark.parametrize("concurrency", ["asyncio"])
def test_hooks_that_are_coroutines_are_awaited(begin: Any) -> None:
    class Awaited(everserve.LineRequestHandler[Any, Any]):
        handover = True
        count = 0

        async def on_moved(self) -> None:
            self.count += 100

        async def handle_message(self, line: bytes) -> bytes:
            self.count += 1
            return b"%s %d" % (line, self.count)

    scene = begin(Awaited, Awaited)
    client = scene.client()
    assert client.ask(b"a") == b"a 1\n"
    scene.move()
    assert scene.report().moved == 1
    assert client.ask(b"b") == b"b 102\n"
