"""Threads that could not be started once: told in the log, and tried again."""

from __future__ import annotations

import threading

import pytest
from tests.threads import Exhausted

from everserve.fibers.helperthreads import try_to_start


def test_a_failure_is_logged_once_and_so_is_its_end(
    exhausted: Exhausted, caplog: pytest.LogCaptureFixture
) -> None:
    ran = threading.Event()
    for _ in range(3):
        assert try_to_start(ran.set, name="thread-under-test") is None
    exhausted.end()
    thread = try_to_start(ran.set, name="thread-under-test")
    assert thread is not None
    thread.join()
    assert ran.is_set()
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "the thread thread-under-test cannot be started",
        "the thread thread-under-test could be started now",
    ]
