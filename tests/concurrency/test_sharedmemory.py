"""``concurrency.sharedmemory``: a few bytes between a process and its children."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everserve.concurrency.sharedmemory import _HEAD, _OUTCOME, _PEER, Note, SharedOrders
from everserve.concurrency.strategy import Order
from everserve.events import (
    DeadlineMissed,
    Draining,
    Failed,
    Finished,
    Opened,
    Refused,
    ServerEvent,
)
from everserve.lifecycle.outcome import Outcome

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


def test_it_begins_empty() -> None:
    orders = SharedOrders()
    assert orders.draining is False
    assert orders.take() is None


@pytest.mark.parametrize("grace", [None, 0.0, 2.5, 3600.0])
def test_an_order_is_taken_once(grace: float | None) -> None:
    orders = SharedOrders()
    orders.ask(grace)
    assert orders.take() == Order(grace)
    assert orders.take() is None


def test_draining() -> None:
    orders = SharedOrders()
    orders.draining = True
    assert orders.draining is True
    orders.draining = False
    assert orders.draining is False


def test_it_is_shared_with_children() -> None:
    orders = SharedOrders()
    orders.draining = True
    pid = os.fork()
    if pid == 0:
        orders.ask(1.5)
        os._exit(0 if orders.draining else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert orders.take() == Order(1.5)


@pytest.fixture
def note() -> Iterator[Note]:
    note = Note()
    yield note
    note.close()


@pytest.mark.parametrize("grace", [math.nan, math.inf, -1.0])
def test_an_order_with_an_impossible_grace_is_none(grace: float) -> None:
    orders = SharedOrders()
    orders.ask(grace)
    assert orders.take() is None


def test_an_unknown_order_is_none() -> None:
    orders = SharedOrders()
    orders._memory[1] = 77
    assert orders.take() is None


@pytest.mark.parametrize(
    "peer", [[], ["tuple", 1.5], ["tuple", []], ["bytes", "\u0100"], ["str"], 5, {"a": 1}, "["]
)
def test_a_peer_of_another_form_is_not_believed(note: Note, peer: Any) -> None:
    note._write(_PEER, peer)
    assert note.peer("known") == "known"


@pytest.mark.parametrize(
    "outcome",
    [
        [],
        {},
        {"missed": "x"},
        asdict(Outcome()) | {"failed": "yes"},
        asdict(Outcome()) | {"error": None},
        asdict(Outcome()) | {"more": 1},
    ],
)
def test_an_outcome_of_another_form_is_not_believed(note: Note, outcome: Any) -> None:
    note._write(_OUTCOME, outcome)
    assert note.read() is None


@settings(max_examples=200)
@given(st.binary(max_size=64), st.integers(0, 200), st.booleans())
def test_no_bytes_of_a_child_harm_its_parent(data: bytes, at: int, signed: bool) -> None:
    note = Note()
    note.take_down(Failed(1, ("192.0.2.1", 4711), ValueError("x"), False))
    for part in (_PEER, _OUTCOME):
        if signed:
            text = data * 10
            note._memory[part.start : part.start + len(text) + _HEAD.size] = (
                _HEAD.pack(len(text), zlib.crc32(text)) + text
            )
        note._memory[part.start + at : part.start + at + len(data)] = data
    assert isinstance(note.peer("known"), tuple | str | bytes)
    assert note.read() is None or isinstance(note.read(), Outcome)
    note.close()


def test_deep_structures_are_not_read(note: Note) -> None:
    text = b"[" * 3000
    data = _HEAD.pack(len(text), zlib.crc32(text)) + text
    note._memory[_OUTCOME.start : _OUTCOME.start + len(data)] = data
    assert note.read() is None


def test_an_empty_note(note: Note) -> None:
    assert note.read() is None
    assert not note.handshaken


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
    note: Note, events: list[ServerEvent], outcome: Outcome
) -> None:
    for event in events:
        note.take_down(event)
    assert note.read() == outcome


def test_across_a_fork(note: Note) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            note.handshaken = True
            note.take_down(Refused(1, "peer", "proxy"))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert note.handshaken
    assert note.read() == Outcome(refused="proxy")


def test_opened(note: Note) -> None:
    assert not note.opened
    note.take_down(Opened(1, "peer"))
    assert note.opened
    assert note.read() is None


@pytest.mark.parametrize(
    "peer",
    [("192.0.2.1", 4711), ("2001:db8::1", 4711, 0, 0), "/run/client", b"\0abstract", b"\xff" * 108],
)
def test_the_peer(note: Note, peer: Any) -> None:
    assert note.peer("unknown") == "unknown"
    note.take_down(Opened(1, peer))
    assert note.peer("unknown") == peer


@pytest.mark.parametrize("peer", [object(), (object(),), "x" * 5000])
def test_a_peer_that_cannot_be_noted(note: Note, peer: Any) -> None:
    note.take_down(Opened(1, peer))
    assert note.peer("known") == "known"


def test_an_event_that_is_not_of_the_request(note: Note) -> None:
    note.take_down(Draining(1.0))
    assert (note.opened, note.read(), note.peer("known")) == (False, None, "known")


@pytest.mark.parametrize("text", ["x", "\0", "\U0001f600", "\udc80"])
def test_the_longest_texts_fit(note: Note, text: str) -> None:
    note.take_down(DeadlineMissed(1, "peer", text * 5000))
    note.take_down(Refused(1, "peer", text * 5000))
    note.take_down(Failed(1, "peer", ValueError(text * 5000), False))
    outcome = note.read()
    assert outcome is not None
    assert outcome.refused
    assert outcome.error.startswith("ValueError(")
