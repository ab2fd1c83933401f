"""``concurrency.sharedword``: a few bytes between a process and its children."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from everserve.admission.outcome import Outcome
from everserve.concurrency.sharedword import Note, Request, SharedWord
from everserve.events import DeadlineMissed, Event, Failed, Finished, Refused

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


@pytest.mark.parametrize("text", ["x", "\0", "\U0001f600", "\udc80"])
def test_the_longest_words_fit_in(note: Note, text: str) -> None:
    note.take_down(DeadlineMissed(1, "peer", text * 5000))
    note.take_down(Refused(1, "peer", text * 5000))
    note.take_down(Failed(1, "peer", ValueError(text * 5000), False))
    outcome = note.read()
    assert outcome is not None
    assert outcome.refused
    assert outcome.error.startswith("ValueError(")
