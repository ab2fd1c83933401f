"""`spawn`: a fiber where a hub runs, a thread elsewhere, with the same methods."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from everserve.fibers import spawning
from everserve.fibers.exits import FiberExit
from everserve.fibers.spawning import SpawnedThread, spawn
from everserve.fibers.sync import Event, Queue, sleep

Run = Callable[..., Any]
LIMIT = 20.0


def test_spawn_finds_the_hub(run: Run, hub: Any, parts: Any) -> None:
    seen: list[int] = []

    def use() -> None:
        spawned = spawn(seen.append, 1)
        assert isinstance(spawned, parts.Fiber)
        assert spawned.join(LIMIT)

    run(use)
    assert seen == [1]


def test_elsewhere_it_is_a_daemon_thread_in_the_context_of_its_caller() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    variable.set(3)
    seen: list[Any] = []

    def look(what: str) -> None:
        seen.append((what, variable.get(), threading.current_thread().daemon))

    spawned = spawn(look, "x")
    assert isinstance(spawned, SpawnedThread)
    assert spawned.join(LIMIT)
    assert spawned.dead
    assert "look dead" in repr(spawned)
    assert seen == [("x", 3, True)]


@pytest.mark.parametrize("wait", [Event().wait, Queue[int]().get, lambda: sleep(60)])
def test_kill_ends_a_thread_where_it_waits(wait: Callable[[], object]) -> None:
    began, seen = Event(), Queue[BaseException]()

    def work() -> None:
        began.set()
        try:
            wait()
        except BaseException as error:
            seen.put(error)
            raise

    spawned = spawn(work)
    assert began.wait(LIMIT)
    assert not spawned.join(0.001)
    assert "running" in repr(spawned)
    spawned.kill()
    assert isinstance(seen.get(timeout=LIMIT), FiberExit)
    assert spawned.join(LIMIT)


def test_a_kill_that_comes_before_the_wait_is_not_lost() -> None:
    gate, seen = threading.Event(), Queue[BaseException]()

    def work() -> None:
        gate.wait(LIMIT)
        try:
            sleep(60)
        except ValueError as error:
            seen.put(error)

    spawned = spawn(work)
    spawned.kill(ValueError)
    gate.set()
    assert isinstance(seen.get(timeout=LIMIT), ValueError)
    assert spawned.join(LIMIT)


def test_a_thread_that_kills_itself_ends_at_once(caplog: pytest.LogCaptureFixture) -> None:
    mine: list[Any] = []
    ready = threading.Event()

    def work() -> None:
        ready.wait(LIMIT)
        mine[0].kill()
        raise AssertionError("it went on")

    mine.append(spawn(work))
    ready.set()
    assert mine[0].join(LIMIT)
    assert not caplog.records


def test_what_a_thread_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "everserve"):
        assert spawn(lambda: 1 / 0).join(LIMIT)
    assert "ZeroDivisionError" in caplog.text


def test_a_thread_that_cannot_be_started_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(spawning.threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="new thread"):
        spawn(print)
