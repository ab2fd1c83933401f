"""The outbox of a connection, in Python and compiled: order, bounds, and its end."""

from __future__ import annotations

import importlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.clients import LIMIT, Background

LARGE = b"x" * 4_000_000


@pytest.fixture(params=["outbox", "_outbox"])
def make(request: pytest.FixtureRequest) -> Any:
    try:
        return importlib.import_module(f"everserve.messages.{request.param}").Outbox
    except ImportError:
        if os.environ.get("EVERSERVE_NATIVE") == "yes":
            raise
        pytest.skip("the compiled engine was not built")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, peer = socket.socketpair()
    peer.settimeout(LIMIT)
    yield ours, peer
    ours.close()
    peer.close()


def read(peer: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = peer.recv(min(size, 1 << 20))
        assert part
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def test_pushes_and_replies_leave_in_order(make: Any, pair: Any) -> None:
    outbox = make(pair[0], None)
    assert outbox.push(b"a", 4, "wait")
    outbox.send(b"b")
    assert outbox.push(b"c", 4, "wait")
    assert read(pair[1], 3) == b"abc"


def test_a_reply_waits_for_what_was_pushed_before(make: Any, pair: Any) -> None:
    outbox = make(pair[0], None)
    assert outbox.push(LARGE, 4, "wait")
    assert outbox.push(b"pushed", 4, "wait")
    reply = Background(outbox.send, b"reply")
    assert read(pair[1], len(LARGE) + 11) == LARGE + b"pushedreply"
    reply.result()


@pytest.mark.parametrize(
    ("policy", "taken", "rest"),
    [
        ("drop-newest", [True, True, False], b"12"),
        ("drop-oldest", [True, True, True], b"23"),
        ("disconnect", [True, True, False], b"12"),
    ],
)
def test_a_full_outbox(make: Any, pair: Any, policy: str, taken: list[bool], rest: bytes) -> None:
    outbox = make(pair[0], None)
    assert outbox.push(LARGE, 2, policy)
    assert [outbox.push(b"%d" % n, 2, policy) for n in (1, 2, 3)] == taken
    assert read(pair[1], len(LARGE) + len(rest)) == LARGE + rest


def test_a_push_that_waits_for_room(make: Any, pair: Any) -> None:
    outbox = make(pair[0], None)
    assert outbox.push(LARGE, 1, "wait")
    assert outbox.push(b"1", 1, "wait")
    pusher = Background(outbox.push, b"2", 1, "wait")
    assert read(pair[1], len(LARGE) + 2) == LARGE + b"12"
    assert pusher.result() is True


def test_its_end_waits_until_all_is_sent(make: Any, pair: Any) -> None:
    outbox = make(pair[0], None)
    assert outbox.push(LARGE, 1, "wait")
    closing = Background(outbox.close)
    assert read(pair[1], len(LARGE)) == LARGE
    closing.result()
    assert outbox.is_closed
    assert not outbox.push(b"late", 1, "wait")
    with pytest.raises(BrokenPipeError):
        outbox.send(b"late")


def test_a_peer_that_has_gone(make: Any, pair: Any) -> None:
    outbox = make(pair[0], None)
    assert outbox.push(LARGE, 1, "wait")
    assert outbox.push(b"1", 1, "wait")
    pusher = Background(outbox.push, b"2", 1, "wait")
    pair[1].close()
    assert pusher.result() in (True, False)
    outbox.close()
    assert not outbox.push(b"3", 1, "wait")


def test_a_send_that_fails(make: Any, pair: Any) -> None:
    outbox = make(pair[0], None)
    pair[1].close()
    with pytest.raises(OSError):
        outbox.send(LARGE)
    assert outbox.is_closed
    assert not outbox.push(b"1", 1, "wait")


def test_what_is_pushed_while_it_is_held_is_sent_at_the_release(make: Any, pair: Any) -> None:
    outbox = make(pair[0], None)
    assert outbox.hold(lambda: None)
    assert outbox.push(b"a", 4, "wait")
    assert outbox.push(b"b", 4, "wait")
    pair[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        pair[1].recv(1)
    pair[1].settimeout(LIMIT)
    outbox.release()
    assert read(pair[1], 2) == b"ab"
    assert outbox.push(b"c", 4, "wait")
    assert read(pair[1], 1) == b"c"


def test_what_was_held_can_be_taken_and_given_back(make: Any, pair: Any) -> None:
    outbox = make(pair[0], None)
    assert outbox.hold(lambda: None)
    assert outbox.push(b"a", 4, "wait")
    assert outbox.take_held() == b"a"
    assert outbox.is_closed
    assert not outbox.push(b"late", 4, "wait")
    outbox.hold_again(b"a")
    assert outbox.push(b"b", 4, "wait")
    assert outbox.take_held() == b"ab"
    assert outbox.take_held() == b""


def test_it_is_held_when_all_is_sent(make: Any, pair: Any) -> None:
    outbox = make(pair[0], None)
    sent = threading.Event()
    assert outbox.push(LARGE, 4, "wait")
    assert not outbox.hold(sent.set)
    read(pair[1], len(LARGE))
    assert sent.wait(LIMIT)
    assert outbox.hold(sent.set)


def test_one_that_has_failed_is_not_held(make: Any, pair: Any) -> None:
    outbox = make(pair[0], None)
    failed = threading.Event()
    assert outbox.push(LARGE, 4, "wait")
    assert not outbox.hold(failed.set)
    pair[1].close()
    assert failed.wait(LIMIT)
    assert outbox.is_closed
    assert not outbox.hold(lambda: None)
