"""The thread that watches the parked connections of a pool."""

from __future__ import annotations

import queue
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests.clients import LIMIT

from everserve.concurrency.parking import ThreadParking


class Session:
    """A session that waits at one end of a pair of sockets."""

    fresh = False

    def __init__(self) -> None:
        self.request, self.peer = socket.socketpair()

    def close(self) -> None:
        self.request.close()
        self.peer.close()


@pytest.fixture
def run() -> queue.SimpleQueue[Any]:
    return queue.SimpleQueue()


@pytest.fixture
def parking(run: queue.SimpleQueue[Any]) -> Iterator[ThreadParking]:
    parking = ThreadParking(run.put)
    yield parking
    parking.close()


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session()
    yield session
    session.close()


def test_a_session_runs_when_something_comes(
    parking: ThreadParking, run: queue.SimpleQueue[Any], session: Session
) -> None:
    for turn in range(3):
        parking.park(session)
        assert len(parking) == 1
        session.peer.send(b"%d" % turn)
        assert run.get(timeout=LIMIT) is session
        assert len(parking) == 0
        assert session.request.recv(100) == b"%d" % turn


def test_what_has_come_before_is_found(
    parking: ThreadParking, run: queue.SimpleQueue[Any], session: Session
) -> None:
    session.peer.send(b"x")
    parking.park(session)
    assert run.get(timeout=LIMIT) is session


def test_the_end_of_the_stream_is_found(
    parking: ThreadParking, run: queue.SimpleQueue[Any], session: Session
) -> None:
    parking.park(session)
    session.peer.close()
    assert run.get(timeout=LIMIT) is session


def test_a_drain_runs_all_of_them(
    parking: ThreadParking, run: queue.SimpleQueue[Any], session: Session
) -> None:
    parking.park(session)
    parking.drain()
    assert run.get_nowait() is session
    parking.park(session)
    assert run.get_nowait() is session


def test_a_fresh_session_stays_in_a_drain(
    parking: ThreadParking, run: queue.SimpleQueue[Any], session: Session
) -> None:
    parking.drain()
    session.fresh = True
    parking.park(session)
    assert len(parking) == 1
    session.peer.send(b"x")
    assert run.get(timeout=LIMIT) is session


def test_after_its_end_it_takes_nothing(
    parking: ThreadParking, run: queue.SimpleQueue[Any], session: Session
) -> None:
    assert parking.takes(session.request)
    assert not parking.takes(object())
    parking.park(session)
    parking.close()
    assert parking.closed
    assert run.get_nowait() is session
    assert not parking.takes(session.request)
    parking.park(session)
    assert run.get_nowait() is session


def test_a_closed_socket_runs_at_once(
    parking: ThreadParking, run: queue.SimpleQueue[Any], session: Session
) -> None:
    session.request.close()
    parking.park(session)
    assert run.get_nowait() is session


def test_a_thread_that_no_one_needs_lingers(session: Session) -> None:
    needed = [False]
    parking = ThreadParking(lambda session: None, lambda: needed[0])
    session.peer.send(b"x")
    assert parking.linger(session.request)
    needed[0] = True
    assert not parking.linger(session.request)
    needed[0] = False
    session.request.recv(1)
    assert not parking.linger(session.request)
    parking.close()
    assert not parking.linger(session.request)
