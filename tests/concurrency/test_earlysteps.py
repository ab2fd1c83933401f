"""``concurrency.earlysteps``: one thread takes the first steps of many connections."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest
from tests.clients import LIMIT

from everserve.concurrency import earlysteps
from everserve.concurrency.earlysteps import Candidate, EarlyThread

Done = SimpleQueue[Candidate]


class Steps:
    """A context whose steps are over when ``needed`` bytes have come."""

    def __init__(self, sock: socket.socket, needed: int) -> None:
        self.sock = sock
        self.needed = needed
        self.calls: list[str] = []

    def begin_early(self) -> None:
        self.sock.setblocking(False)

    def advance(self, steps: Any) -> int:
        self.calls.append(threading.current_thread().name)
        try:
            self.needed -= len(self.sock.recv(self.needed))
        except BlockingIOError:
            pass
        return selectors.EVENT_READ if self.needed else 0

    def end_early(self) -> None:
        self.sock.setblocking(True)

    def leave(self) -> None:
        self.calls.append("left")


@pytest.fixture
def done() -> Done:
    return SimpleQueue()


@pytest.fixture
def thread(done: Done) -> Iterator[EarlyThread]:
    made = EarlyThread(done.put)
    yield made
    for candidate in made.drop():
        candidate.request.close()
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, peer = socket.socketpair()
    with ours, peer:
        yield ours, peer


def candidate(sock: socket.socket, needed: int = 2) -> Candidate:
    return Candidate(sock, Steps(sock, needed), (), ("argument",))


def test_it_is_done_when_the_peer_has_sent_all(thread: EarlyThread, done: Done, pair: Any) -> None:
    ours, peer = pair
    one = candidate(ours)
    assert thread.add(one)
    assert len(thread) == 1
    peer.sendall(b"a")
    assert done.empty()
    peer.sendall(b"b")
    assert done.get(timeout=LIMIT) is one
    assert not thread
    assert ours.getblocking()
    assert set(one.context.calls) == {"everserve-early"}  # type: ignore[attr-defined]


def test_one_that_waits_holds_up_no_other(thread: EarlyThread, done: Done, pair: Any) -> None:
    ours, _ = pair
    other, peer = socket.socketpair()
    with other, peer:
        assert thread.add(candidate(ours))
        assert thread.add(second := candidate(other))
        peer.sendall(b"ab")
        assert done.get(timeout=LIMIT) is second
    assert len(thread) == 1


def test_what_is_dropped_is_not_done(thread: EarlyThread, done: Done, pair: Any) -> None:
    ours, peer = pair
    one = candidate(ours)
    assert thread.add(one)
    assert thread.drop() == [one]
    assert one.context.calls[-1] == "left"  # type: ignore[attr-defined]
    peer.sendall(b"ab")
    thread.close()
    assert done.empty()


class Full(selectors.DefaultSelector):
    """A selector for which the system has no memory."""

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if data is not None:
            raise OSError("no space")
        return super().register(fileobj, events, data)


def test_what_cannot_be_waited_for_is_for_the_caller(
    thread: EarlyThread, done: Done, pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selectors, "DefaultSelector", Full)
    one = candidate(pair[0])
    assert thread.add(one)
    assert done.get(timeout=LIMIT) is one
    assert pair[0].getblocking()


def test_a_system_without_a_thread(
    thread: EarlyThread, pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earlysteps, "try_to_start", lambda *_arguments, **_names: None)
    assert not thread.add(candidate(pair[0]))
    assert not thread


def test_the_thread_ends_with_the_last_one(thread: EarlyThread, done: Done, pair: Any) -> None:
    ours, peer = pair
    assert thread.add(candidate(ours))
    thread.close()
    peer.sendall(b"ab")
    done.get(timeout=LIMIT)
    thread.close()
    assert not thread._thread.is_alive()  # type: ignore[union-attr]


class Failing(selectors.DefaultSelector):
    """A selector whose wait fails in a way that no one expects, once there is a candidate."""

    def select(self, timeout: float | None = None) -> Any:
        if len(self.get_map()) > 1:
            raise MemoryError
        return super().select(timeout)


def test_a_thread_that_fails_leaves_the_candidates_to_the_caller(
    thread: EarlyThread, done: Done, pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, peer = pair
    with monkeypatch.context() as patch:
        patch.setattr(selectors, "DefaultSelector", Failing)
        assert thread.add(one := candidate(ours))
        assert done.get(timeout=LIMIT) is one
    assert thread.add(again := candidate(ours))  # by another thread
    peer.sendall(b"ab")
    assert done.get(timeout=LIMIT) is again


def test_a_caller_that_raises_costs_no_other(pair: Any) -> None:
    ours, peer = pair
    seen: Done = SimpleQueue()

    def fail(one: Candidate) -> None:
        seen.put(one)
        raise ValueError("own")

    thread = EarlyThread(fail)
    for _ in range(2):
        assert thread.add(one := candidate(ours, needed=1))
        peer.sendall(b"a")
        assert seen.get(timeout=LIMIT) is one
    thread.close()
