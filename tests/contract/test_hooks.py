"""The contract: the hooks are called in their documented order, each where it belongs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.contract.kinds import Client, Record, Strategy, Transport
from tests.scenes import EventRecorder

from everserve.events import Accepted, Failed, Finished, Refused

MakeServer = Callable[..., Any]
MakeClient = Callable[[Any], Client]

HOOKS = [
    "get_request", "verify_request", "process_request", "process_request_thread",
    "finish_request", "handle_error", "shutdown_request", "close_request",
]  # fmt: skip


def noting(record: Record, base: type, hook: str) -> Callable[..., Any]:
    def call(self: Any, *args: Any) -> Any:
        record.note(hook)
        return getattr(base, hook)(self, *args)

    return call


@pytest.fixture
def noted(
    make_server: MakeServer, strategy: Strategy, transport: Transport, record: Record
) -> Callable[..., Any]:
    """``noted(handle)``: a server and a handler whose hooks are noted."""

    def make(handle: Callable[[Any], None], **attributes: Any) -> Any:
        server = make_server(handle)
        base = type(server)
        for hook in HOOKS:
            if hasattr(base, hook) and hook not in attributes:
                setattr(server, hook, noting(record, base, hook).__get__(server))
        for name, value in attributes.items():
            setattr(server, name, value.__get__(server))
        plain = server.RequestHandlerClass
        steps = {hook: noting(record, plain, hook) for hook in ("setup", "handle", "finish")}
        server.RequestHandlerClass = type("Noted", (plain,), steps)
        return server

    return make


def echo(handler: Any) -> None:
    handler.wfile.write(handler.rfile.readline())


def until(record: Record, seen: list[tuple[bool, str]], count: int) -> list[tuple[bool, str]]:
    while len(seen) < count:
        seen += record.read()
    return seen


def test_of_a_request(
    noted: Callable[..., Any],
    make_client: MakeClient,
    strategy: Strategy,
    record: Record,
    recorder: EventRecorder,
) -> None:
    server = noted(echo)
    server.subscribe(recorder)
    with server.running():
        assert make_client(server).ask(b"ping\n") == b"ping\n"
        recorder.wait_for(Finished)
    notes = record.read()
    accepting = ["get_request", "verify_request", "process_request"]
    handling = ["finish_request", "setup", "handle", "finish", "shutdown_request", "close_request"]
    if strategy.thread_hook:
        handling.insert(0, "process_request_thread")
    if strategy.in_processes:
        assert [name for here, name in notes if here] == [*accepting, "close_request"]
        assert [name for here, name in notes if not here] == handling
    else:
        assert [name for _, name in notes] == [*accepting, *handling]


def test_of_a_request_that_fails(
    noted: Callable[..., Any],
    make_client: MakeClient,
    strategy: Strategy,
    record: Record,
    recorder: EventRecorder,
) -> None:
    def fail(handler: Any) -> None:
        handler.rfile.readline()
        raise ValueError("must fail")

    server = noted(fail, handle_error=lambda self, *_: record.note("handle_error"))
    server.subscribe(recorder)
    with server.running():
        make_client(server).send(b"ping\n")
        recorder.wait_for(Failed)
        server._everserve.life.notifier.wait_until(lambda: not server.connections)
    names = [name for here, name in record.read() if here is not strategy.in_processes]
    assert names[names.index("finish_request") :] == [
        "finish_request", "setup", "handle", "finish",
        "handle_error", "shutdown_request", "close_request",
    ]  # fmt: skip


def test_of_a_request_that_is_refused(
    noted: Callable[..., Any], make_client: MakeClient, record: Record, recorder: EventRecorder
) -> None:
    server = noted(echo, verify_request=lambda *_: False)
    server.subscribe(recorder)
    with server.running():
        make_client(server).offer(b"ping\n")
        recorder.wait_for(Refused)
    assert [name for _, name in record.read()] == [
        "get_request", "shutdown_request", "close_request"
    ]  # fmt: skip


def test_finish_is_not_called_if_setup_raised(
    noted: Callable[..., Any], make_client: MakeClient, strategy: Strategy, record: Record
) -> None:
    def setup(handler: Any) -> None:
        record.note("setup")
        raise ValueError("must fail")

    server = noted(echo, handle_error=lambda self, *_: record.note("handle_error"))
    server.RequestHandlerClass.setup = setup
    with server.running():
        make_client(server).offer(b"ping\n")
        seen = until(record, [], 6)
        server._everserve.life.notifier.wait_until(lambda: not server.connections)
    names = [name for _, name in seen + record.read()]
    assert "handle_error" in names
    assert not {"handle", "finish"} & set(names)


def test_each_request_is_accounted_for(
    make_server: MakeServer, make_client: MakeClient, recorder: EventRecorder
) -> None:
    def handle(handler: Any) -> None:
        if handler.rfile.readline() == b"fail\n":
            raise ValueError("must fail")

    turns = iter([True, False, True, True, False, True])
    server = make_server(
        handle,
        verify_request=lambda *_: next(turns),
        handle_error=lambda *_: None,
    )
    server.subscribe(recorder)
    with server.running():
        lines = [b"one\n", b"refused\n", b"fail\n", b"two\n", b"refused\n", b"fail\n"]
        for number, line in enumerate(lines, 1):
            make_client(server).offer(line)
            recorder.wait_for(Accepted, number)
    ends = {kind: len(recorder.of(kind)) for kind in (Accepted, Refused, Finished, Failed)}
    assert ends[Accepted] == 6
    assert ends[Refused] == 2
    assert ends[Finished] == ends[Failed] == 2
    numbers = [
        event.connection for kind in (Refused, Finished, Failed) for event in recorder.of(kind)
    ]
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6]
