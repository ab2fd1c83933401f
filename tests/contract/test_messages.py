"""The contract of message handlers: the same handler, whatever runs it, and whatever carries it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from tests.clients import LIMIT, Background
from tests.contract import tasks
from tests.contract.kinds import Client, Record, Strategy, Transport, make_server_class
from tests.scenes import EventRecorder

from everserve.errors import FrameError
from everserve.events import Failed, Finished
from everserve.messages import JSONRequestHandler, LineRequestHandler, Lines

MakeClient = Callable[[Any], Client]


@pytest.fixture
def make_server(
    strategy: Strategy, transport: Transport, tmp_path: Path
) -> Iterator[Callable[..., Any]]:
    """``make_server(handler)``: a server of a message handler."""
    if transport.name in ("tcp6", "udp6"):
        pytest.skip("as over IPv4")
    servers: list[Any] = []

    def make(handler: type, **attributes: Any) -> Any:
        made = make_server_class(strategy, transport, **attributes)
        if strategy.awaits:
            handler = tasks.message_handler(handler)
        servers.append(made(transport.address(tmp_path), handler))
        # A forked child waits for its peer until it is cut.
        grace = 0.05 if strategy.in_processes else LIMIT
        servers[-1].serving = lambda: servers[-1].running(grace=grace)
        return servers[-1]

    yield make
    for server in servers:
        server.server_close()


class Counting(LineRequestHandler[Any, Any]):
    """Numbers the messages of each connection."""

    number = 0

    def handle_message(self, message: bytes) -> Any:
        self.number += 1
        if message == b"none":
            return None
        if message == b"several":
            return [b"one", b"two"]
        if message == b"iterator":
            return (b"%d" % n for n in range(2))
        return b"%d %s" % (self.number, message)


def test_a_message_and_its_reply(make_server: Any, make_client: MakeClient) -> None:
    server = make_server(Counting)
    with server.serving():
        client = make_client(server)
        assert client.ask(b"a\n") == b"1 a\n"
        assert client.ask(b"b\n").endswith(b" b\n")


def test_the_object_is_the_session(
    make_server: Any, make_client: MakeClient, stream: Transport
) -> None:
    server = make_server(Counting)
    with server.serving():
        client = make_client(server)
        assert client.ask(b"a\nb") == b"1 a\n"
        assert client.ask(b"c\nd\n") == b"2 bc\n"
        assert client.receive() == b"3 d\n"
        assert client.ask(b"none\nseveral\niterator\nlast\n") == b"one\n"
        assert [client.receive() for _ in range(4)] == [b"two\n", b"0\n", b"1\n", b"7 last\n"]


def test_more_than_one_turn_takes(
    make_server: Any, make_client: MakeClient, stream: Transport
) -> None:
    server = make_server(type("Shallow", (Counting,), {"pipeline_depth": 3}))
    with server.serving():
        client = make_client(server)
        sender = Background(client.send, b"x" * 50 + b"\n" + b"y\n" * 4000)
        assert client.receive() == b"1 " + b"x" * 50 + b"\n"
        for number in range(4000):
            assert client.receive() == b"%d y\n" % (number + 2)
        sender.result()


def test_the_hooks_in_their_order(
    make_server: Any, make_client: MakeClient, record: Record, stream: Transport
) -> None:
    class Noting(Counting):
        def setup(self) -> None:
            record.note("setup")

        def on_connect(self) -> None:
            record.note("on_connect")

        def handle_message(self, message: bytes) -> Any:
            record.note(message.decode())
            return super().handle_message(message)

        def on_disconnect(self) -> None:
            record.note("on_disconnect")

        def finish(self) -> None:
            record.note("finish")

    recorder = EventRecorder()
    server = make_server(Noting)
    server.subscribe(recorder)
    with server.serving():
        client = make_client(server)
        client.ask(b"a\n")
        client.ask(b"b\n")
        client.close()
        recorder.wait_for(Finished, 1)
    wanted = ["setup", "on_connect", "a", "b", "on_disconnect", "finish"]
    assert [what for _, what in record.read()] == wanted


def test_a_bad_message_is_the_fault_of_the_peer(make_server: Any, make_client: MakeClient) -> None:
    recorder = EventRecorder()
    server = make_server(type("Short", (Counting,), {"codec": Lines(8)}))
    server.subscribe(recorder)
    with server.serving():
        client = make_client(server)
        client.send(b"0123456789")
        client.end()
        (event,) = recorder.wait_for(Failed, 1)
    assert event.peer_gone
    assert "more than 8 bytes" in str(event.error)


def test_a_bad_message_may_be_answered(make_server: Any, make_client: MakeClient) -> None:
    class Answering(JSONRequestHandler[Any, Any]):
        def handle_message(self, message: Any) -> Any:
            return {"you said": message}

        def on_bad_message(self, error: FrameError) -> Any:
            return {"error": str(error)[:9]}

    server = make_server(Answering)
    with server.serving():
        client = make_client(server)
        assert client.ask(b"{\n") == b'{"error":"a line is"}\n'
        assert client.ask(b"[1]\n") == b'{"you said":[1]}\n'


def test_the_end_inside_a_message(
    make_server: Any, make_client: MakeClient, stream: Transport
) -> None:
    recorder = EventRecorder()
    server = make_server(Counting)
    server.subscribe(recorder)
    with server.serving():
        client = make_client(server)
        assert client.ask(b"a\nb") == b"1 a\n"
        client.close()
        (event,) = recorder.wait_for(Failed, 1)
    assert event.peer_gone
    assert "inside a message" in str(event.error)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_ends_its_connection_alone(
    make_server: Any, make_client: MakeClient, stream: Transport, record: Record
) -> None:
    class Failing(Counting):
        def handle_message(self, message: bytes) -> Any:
            if message == b"fail":
                raise LookupError("meant")
            return super().handle_message(message)

        def on_disconnect(self) -> None:
            record.note("on_disconnect")

    recorder = EventRecorder()
    server = make_server(Failing)
    server.subscribe(recorder)
    with server.serving():
        client = make_client(server)
        assert client.ask(b"a\n") == b"1 a\n"
        assert client.ask(b"b\nfail\nc\n") == b"2 b\n"  # the replies before it are sent
        client.end()
        (event,) = recorder.wait_for(Failed, 1)
        assert "meant" in str(event.error)
        assert make_client(server).ask(b"x\n") == b"1 x\n"
    assert record.read()[0][1] == "on_disconnect"


def test_a_stop_ends_what_waits_between_messages(
    make_server: Any, make_client: MakeClient, stream: Transport
) -> None:
    server = make_server(Counting)
    with server.serving():
        client = make_client(server)
        assert client.ask(b"a\n") == b"1 a\n"
    client.end()


# -- pushes ----------------------------------------------------------------------------------------

PARKING = ("fibers", "pool", "asyncio")


class Device(LineRequestHandler[Any, Any]):
    """``name X``: be X. ``tell X text``: push the text to X."""

    def handle_message(self, message: bytes) -> Any:
        match message.split(b" ", 2):
            case [b"name", key]:
                self.key = key
                return b"named"
            case [b"tell", key, text]:
                found = self.server.connections.get(key)
                return b"no" if found is None else b"%d" % found.push(text)
        return b"?"


@pytest.fixture
def here(strategy: Strategy) -> Strategy:
    if strategy.in_processes or not strategy.concurrent:
        pytest.skip("another handler is in another process, or waits for this one")
    return strategy


def test_a_push_to_a_connection_found_by_its_key(
    make_server: Any, make_client: MakeClient, stream: Transport, here: Strategy
) -> None:
    server = make_server(Device)
    with server.serving():
        device, other = make_client(server), make_client(server)
        assert device.ask(b"name a\n") == b"named\n"
        assert other.ask(b"tell b hello\n") == b"no\n"
        assert other.ask(b"tell a hello\n") == b"1\n"
        assert device.receive() == b"hello\n"
        assert server.connections[b"a"].push(b"from the test")
        assert device.receive() == b"from the test\n"
        again = make_client(server)
        assert again.ask(b"name a\n") == b"named\n"
        assert other.ask(b"tell a later\n") == b"1\n"
        assert again.receive() == b"later\n"


def test_pushes_of_many_threads_arrive_whole_and_in_order(
    make_server: Any, make_client: MakeClient, stream: Transport, here: Strategy
) -> None:
    server = make_server(Device)
    with server.serving():
        client = make_client(server)
        client.ask(b"name a\n")
        connection = server.connections[b"a"]

        def push_many(name: int) -> None:
            for number in range(300):
                assert connection.push(b"%d %d %s" % (name, number, b"x" * 500))

        pushers = [Background(push_many, name) for name in range(3)]
        seen: dict[int, int] = {0: 0, 1: 0, 2: 0}
        for _ in range(900):
            name, number, text = client.receive().split()
            assert int(number) == seen[int(name)]
            assert text == b"x" * 500
            seen[int(name)] += 1
        for pusher in pushers:
            pusher.result()


@pytest.mark.parametrize("policy", ["wait", "drop-oldest", "drop-newest", "disconnect"])
def test_an_outbox_that_is_full(
    make_server: Any, make_client: MakeClient, stream: Transport, here: Strategy, policy: str
) -> None:
    handler = type("Bounded", (Device,), {"outbox": 4, "outbox_policy": policy})
    server = make_server(handler)
    with server.serving():
        client = make_client(server)
        client.ask(b"name a\n")
        connection = server.connections[b"a"]
        large = b"x" * 1_000_000
        pushed: list[bool] = []
        ready = threading.Event()

        def push_many() -> None:
            for number in range(40):
                pushed.append(connection.push(b"%d %s" % (number, large)))
                ready.set()

        pusher = Background(push_many)
        assert ready.wait(LIMIT)
        if policy != "wait":
            pusher.result()
        if policy == "disconnect":
            assert pushed[-1] is False
            while client.receive():
                pass
            return
        numbers = []
        wanted = {"wait": 40, "drop-oldest": sum(pushed), "drop-newest": sum(pushed)}[policy]
        last = {"wait": 39, "drop-oldest": 39}.get(policy)
        while len(numbers) < wanted and (not numbers or numbers[-1] != last):
            numbers.append(int(client.receive().split()[0]))
        pusher.result()
        assert numbers == sorted(set(numbers))
        assert (len(numbers) == 40) == (policy == "wait")
        if policy == "drop-newest":
            assert numbers == [n for n, taken in enumerate(pushed) if taken]


def test_a_push_after_the_end_is_dropped(
    make_server: Any, make_client: MakeClient, stream: Transport, here: Strategy
) -> None:
    recorder = EventRecorder()
    server = make_server(Device)
    server.subscribe(recorder)
    with server.serving():
        client = make_client(server)
        client.ask(b"name a\n")
        connection = server.connections[b"a"]
        client.close()
        recorder.wait_for(Finished, 1)
        assert connection.push(b"hello") is False
        assert server.connections.get(b"a") is None
        with pytest.raises(KeyError):
            server.connections[b"a"]


# -- parking -----------------------------------------------------------------------------------------


@pytest.fixture
def parking(strategy: Strategy) -> Strategy:
    if strategy.name not in PARKING:
        pytest.skip("its connections are not parked")
    return strategy


def test_connections_that_wait_hold_no_thread(
    make_server: Any, make_client: MakeClient, stream: Transport, parking: Strategy
) -> None:
    limits = {"max_workers": 2} if parking.name == "pool" else {}
    server = make_server(Counting, **limits)
    with server.serving():
        clients = [make_client(server) for _ in range(40)]
        for turn in range(1, 4):
            for client in clients:
                assert client.ask(b"a\n") == b"%d a\n" % turn


def test_a_timeout_of_the_request_holds_no_thread_either(
    make_server: Any, make_client: MakeClient, stream: Transport, parking: Strategy
) -> None:
    class Patient(Counting):
        def on_connect(self) -> None:
            super().on_connect()
            self.request.settimeout(3600)

    limits = {"max_workers": 1} if parking.name == "pool" else {}
    server = make_server(Patient, **limits)
    with server.serving():
        clients = [make_client(server) for _ in range(3)]
        for turn in range(1, 4):
            for client in clients:
                assert client.ask(b"a\n") == b"%d a\n" % turn


def test_no_context_leaks_into_another_connection(
    make_server: Any, make_client: MakeClient, stream: Transport, parking: Strategy
) -> None:
    variable: ContextVar[bytes] = ContextVar("variable", default=b"clean")

    class Setting(LineRequestHandler[Any, Any]):
        def handle_message(self, message: bytes) -> bytes:
            before = variable.get()
            variable.set(message)
            return before

    server = make_server(Setting)
    with server.serving():
        clients = [make_client(server) for _ in range(6)]
        assert {client.ask(b"dirty\n") for client in clients} == {b"clean\n"}


def test_a_hook_of_the_program_keeps_the_thread(
    make_server: Any, make_client: MakeClient, stream: Transport, parking: Strategy, record: Record
) -> None:
    def finish_request(self: Any, request: Any, client_address: Any) -> None:
        super(type(self), self).finish_request(request, client_address)
        record.note("finished")

    server = make_server(Counting, finish_request=finish_request)
    recorder = EventRecorder()
    server.subscribe(recorder)
    with server.serving():
        client = make_client(server)
        assert client.ask(b"a\n") == b"1 a\n"
        assert client.ask(b"b\n") == b"2 b\n"
        assert record.read() == []
        client.close()
        recorder.wait_for(Finished, 1)
    assert record.read() == [(True, "finished")]
