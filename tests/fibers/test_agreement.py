"""One table for both engines: fibers and their sockets in cases in which they once differed."""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engines import loaded

from everserve.fibers.exits import FiberExit

Pair = tuple[Any, socket.socket]
Run = Callable[..., Any]

PIECES = memoryview(bytearray(8))[::2]  # not in one piece


def outcome(call: Callable[[], object]) -> object:
    """What `call` returns, or the type of what it raises."""
    try:
        return call()
    except Exception as error:
        return type(error)


def public(of: object) -> set[str]:
    return {name for name in dir(of) if not name.startswith("_")}


@pytest.mark.parametrize("name", ["Fiber", "FiberSocket", "FiberTLSSocket", "Records", "Semaphore"])
def test_the_reference_has_every_public_name(name: str) -> None:
    compiled, reference = loaded("native"), loaded("python")
    assert public(getattr(compiled, name)) <= public(getattr(reference, name))


# --- arguments of sockets ------------------------------------------------------------------------

ARGUMENTS: dict[str, tuple[Callable[[Any], object], object]] = {
    "recv of nothing": (lambda ours: ours.recv(0), b""),
    "recv of less": (lambda ours: ours.recv(-1), ValueError),
    "recv of all of nothing": (lambda ours: ours.recv(0, socket.MSG_WAITALL), b""),
    "recv_into nothing": (lambda ours: ours.recv_into(bytearray(0)), 0),
    "recv_into less": (lambda ours: ours.recv_into(bytearray(4), -1), ValueError),
    "recv_into too little": (lambda ours: ours.recv_into(bytearray(4), 5), ValueError),
    "recv_into too little for all": (
        lambda ours: ours.recv_into(bytearray(4), 5, socket.MSG_WAITALL),
        ValueError,
    ),
    "recv_into constants": (lambda ours: ours.recv_into(b"abcd"), TypeError),
    "recv_into pieces": (lambda ours: ours.recv_into(PIECES), TypeError),
    "recv_into text": (lambda ours: ours.recv_into("abcd"), TypeError),
    "send of text": (lambda ours: ours.send("abcd"), TypeError),
    "send of pieces": (lambda ours: ours.send(PIECES), BufferError),
    "sendall of text": (lambda ours: ours.sendall("abcd"), TypeError),
    "sendall of pieces": (lambda ours: ours.sendall(PIECES), BufferError),
    "sendall of nothing": (lambda ours: ours.sendall(b""), None),
    "shutdown of no direction": (lambda ours: ours.shutdown(99), OSError),
}


@pytest.mark.parametrize("where", ["in a fiber", "in a thread"])
@pytest.mark.parametrize("how", ARGUMENTS)
def test_arguments(run: Run, pair: Pair, how: str, where: str) -> None:
    """Also if the socket is known to be empty: a wrong call does not wait."""
    ours, peer = pair
    call, expected = ARGUMENTS[how]

    def empty_then_call() -> object:
        assert ours.recv(100) == b"x"
        return outcome(lambda: call(ours))

    peer.sendall(b"x")
    assert (run(empty_then_call) if where == "in a fiber" else empty_then_call()) == expected


def test_a_timeout_of_years(pair: Pair) -> None:
    """Longer than an `int` of milliseconds can hold."""
    ours, _peer = pair
    ours.settimeout(1e12)
    ours._wait(True, time.monotonic() + 1e12)
    assert ours.send(b"x") == 1


# --- descriptors ---------------------------------------------------------------------------------


def registrations(fd: int) -> int:
    """How many epoll instances of this process watch a file by the descriptor `fd`."""
    found = 0
    for entry in Path("/proc/self/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            found += sum(
                line.split()[:2] == ["tfd:", str(fd)] for line in entry.read_text().splitlines()
            )
    return found


@pytest.mark.skipif(not Path("/proc/self/fdinfo").exists(), reason="needs Linux's /proc")
def test_the_next_hub_keeps_a_duplicate(parts: Any, pair: Pair) -> None:
    """Closing a descriptor leaves its file in epoll while a duplicate is open."""
    ours, peer = pair
    hubs = [parts.Hub(), parts.Hub()]
    with ours.dup():
        for hub in hubs:
            fiber = hub.spawn(ours.recv, 1)
            hub.turn(0)
            hub.turn(0)
            peer.sendall(b"x")
            assert fiber.join(20)
        fd = ours.fileno()
        ours.close()
        assert registrations(fd) == 0
    for hub in hubs:
        hub.close()


def test_accepting_closes_what_it_cannot_adopt(parts: Any) -> None:
    class Refusing(parts.FiberSocket):  # type: ignore[misc]
        @classmethod
        def _adopt(cls, *_arguments: Any) -> Any:
            raise LookupError

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        listener.setblocking(False)
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(LookupError):
            parts.accept_many(listener.fileno(), 10, Refusing)
        assert len(os.listdir("/proc/self/fd")) == before
        client.settimeout(20)
        assert client.recv(1) == b""


# --- the end of a fiber --------------------------------------------------------------------------

ENDS: dict[str, tuple[type[BaseException], list[type]]] = {  # killed with; reported
    "an exit": (FiberExit, []),
    "the exit of a program": (SystemExit, []),
    "an error": (LookupError, [LookupError]),
}


def open_stream(parts: Any) -> Any:
    name = "_stream" if parts.name == "native" else "stream"
    return importlib.import_module(f"everserve.streams.{name}").open_stream


@pytest.mark.parametrize("how", ENDS)
def test_a_fiber_that_is_killed_while_it_sends_its_last_bytes(
    parts: Any, hub: Any, errors: list[BaseException], pair: Pair, how: str
) -> None:
    ours, _peer = pair
    kind, reported = ENDS[how]
    ours.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            ours.send(b"x" * 65536)
    ours.setblocking(True)
    reader, writer = open_stream(parts)(ours, coalesce=True)
    fiber = hub.spawn(writer.write, b"x" * 60_000)
    hub.turn(0)
    hub.turn(0)
    assert not fiber.dead
    fiber.kill(kind)
    assert fiber.join(20)
    assert [type(error) for error in errors] == reported
    errors.clear()
    ours.shutdown(socket.SHUT_RDWR)
    reader.close()
    writer.close()
