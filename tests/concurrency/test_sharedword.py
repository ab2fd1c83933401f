"""``concurrency.sharedword``: a few bytes between a process and its children."""

from __future__ import annotations

import os

import pytest

from everserve.concurrency.sharedword import Request, SharedWord

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
