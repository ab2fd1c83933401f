"""``concurrency.sharedword``: a few bytes between a process and its children."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from tests.clients import Background

from everserve.lifecycle.outcome import Outcome
from everserve.concurrency.sharedmemory import Note, Request, SharedWord
from everserve.events import DeadlineMissed, Draining, Event, Failed, Finished, Opened, Refused

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


def test_it_begins_empty() -> None:
    word = SharedWord()
    assert word.draining is False
    assert word.take() is None


@pytest.mark.parametrize("grace", [None, 0.0, 2.5, 3600.0])
def test_a_request_is_taken_once(grace: float | None) -> None:
    word = SharedWord()
    word.ask(grace)
    assert word.take() == Request(grace)
    assert word.take() is None


def test_draining() -> None:
    word = SharedWord()
    word.draining = True
    assert word.draining is True
    word.draining = False
    assert word.draining is False


def test_it_is_shared_with_children() -> None:
    word = SharedWord()
    word.draining = True
    pid = os.fork()
    if pid == 0:
        word.ask(1.5)
        os._exit(0 if word.draining else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert word.take() == Request(1.5)


@pytest.fixture
def note() -> Iterator[Note]:
    note = Note()
    yield note
    note.close()


def test_a_note_that_nobody_wrote(note: Note) -> None:
    assert note.read() is None
    assert not note.greeted


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        ([Finished(1, "peer", 0.5)], Outcome()),
        ([Refused(1, "peer", "proxy")], Outcome(refused="proxy")),
        (
            [DeadlineMissed(1, "peer", "idle_timeout"), Finished(1, "peer", 0.5)],
            Outcome(missed="idle_timeout"),
        ),
        (
            [DeadlineMissed(1, "p", "x"), Refused(1, "p", "x", ValueError("bad"))],
            Outcome(missed="x", refused="x", error="ValueError('bad')"),
        ),
        (
            [Failed(1, "peer", KeyError("key"), True)],
            Outcome(failed=True, error="KeyError('key')", peer_gone=True),
        ),
    ],
)
def test_what_a_child_notes_its_parent_reads(
    note: Note, events: list[Event], outcome: Outcome
) -> None:
    for event in events:
        note.take_down(event)
    assert note.read() == outcome


def test_across_a_fork(note: Note) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            note.greeted = True
            note.take_down(Refused(1, "peer", "proxy"))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert note.greeted
    assert note.read() == Outcome(refused="proxy")


def test_that_the_handler_has_begun(note: Note) -> None:
    assert not note.opened
    note.take_down(Opened(1, "peer"))
    assert note.opened
    assert note.read() is None


@pytest.mark.parametrize(
    "peer",
    [("192.0.2.1", 4711), ("2001:db8::1", 4711, 0, 0), "/run/client", b"\0abstract", b"\xff" * 108],
)
def test_who_the_peer_is(note: Note, peer: Any) -> None:
    assert note.peer("unknown") == "unknown"
    note.take_down(Opened(1, peer))
    assert note.peer("unknown") == peer


@pytest.mark.parametrize("peer", [object(), (object(),), "x" * 5000])
def test_a_peer_that_cannot_be_told(note: Note, peer: Any) -> None:
    note.take_down(Opened(1, peer))
    assert note.peer("known") == "known"


def test_an_event_that_is_none_of_the_requests(note: Note) -> None:
    note.take_down(Draining(1.0))
    assert (note.opened, note.read(), note.peer("known")) == (False, None, "known")


def test_the_traffic_that_a_child_counts(note: Note) -> None:
    assert note.traffic() is None
    ours, theirs = socket.socketpair()
    with ours, theirs:
        counted = note.count(ours)
        counted.sendall(b"12345")
        theirs.sendall(b"123")
        assert counted.recv(10) == b"123"
        traffic = note.traffic()
        assert traffic is not None
        assert traffic == (traffic.quiet, 3, 5, False)
        assert traffic.quiet >= 0
        ours.close()
        with pytest.raises(OSError):
            counted.send(b"6")
        assert note.traffic()[1:] == (3, 5, False)  # type: ignore[index]


def test_the_traffic_is_read_whole_while_it_is_written(note: Note) -> None:
    note.write_traffic(1.0, 2, 3, False)
    pid = os.fork()
    if pid == 0:
        while True:  # until it is killed
            note.write_traffic(1.0, 2, 3, False)
    try:
        for _ in range(20_000):
            traffic = note.traffic()
            assert traffic is not None
            assert traffic[1:] == (2, 3, False)
            assert traffic.quiet < monotonic()  # it moved after the beginning of time
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_the_traffic_of_a_send_that_waits(note: Note) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        counted = note.count(ours)
        sending = Background(counted.sendall, bytes(4_000_000))
        while not (traffic := note.traffic()) or not traffic.waiting:
            pass
        left = 4_000_000
        while left:
            left -= len(theirs.recv(1_000_000))
        sending.result()
        assert note.traffic()[1:] == (0, 4_000_000, False)  # type: ignore[index]


def test_the_traffic_of_one_that_is_closed() -> None:
    note = Note()
    note.close()
    assert note.traffic() is None


@pytest.mark.parametrize("text", ["x", "\0", "\U0001f600", "\udc80"])
def test_the_longest_words_fit_in(note: Note, text: str) -> None:
    note.take_down(DeadlineMissed(1, "peer", text * 5000))
    note.take_down(Refused(1, "peer", text * 5000))
    note.take_down(Failed(1, "peer", ValueError(text * 5000), False))
    outcome = note.read()
    assert outcome is not None
    assert outcome.refused
    assert outcome.error.startswith("ValueError(")
