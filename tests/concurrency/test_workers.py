"""``concurrency.workers``: threads that are reused."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.clients import LIMIT, Background

from everserve.concurrency.workers import WorkerPool


class Task:
    """A task that signals when it has begun, and ends when a test lets it."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.thread: threading.Thread | None = None

    def __call__(self) -> None:
        self.thread = threading.current_thread()
        self.begun.set()
        assert self.go_on.wait(LIMIT)

    def wait_begun(self) -> None:
        assert self.begun.wait(LIMIT)

    def end(self) -> None:
        self.go_on.set()


MakePool = Callable[..., WorkerPool]


@pytest.fixture
def make_pool() -> Iterator[MakePool]:
    pools: list[WorkerPool] = []

    def make(size: int, **keywords: Any) -> WorkerPool:
        pools.append(WorkerPool(size, **{"idle_timeout": 3600, **keywords}))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close(wait=False)


def wait_idle(pool: WorkerPool) -> None:
    """Wait until no task is left."""
    with pool._changed:
        assert pool._changed.wait_for(lambda: pool._busy == 0, LIMIT)


def test_workers_are_started_when_needed_and_reused(make_pool: MakePool) -> None:
    pool = make_pool(3)
    assert len(pool) == 0
    threads = []
    for _ in range(5):
        task = Task()
        pool.run(task)
        task.wait_begun()
        task.end()
        wait_idle(pool)
        threads.append(task.thread)
    assert len(pool) == 1
    assert len(set(threads)) == 1


def test_no_more_than_the_size(make_pool: MakePool) -> None:
    pool = make_pool(2, limit=4)
    tasks = [Task() for _ in range(4)]
    for task in tasks:
        pool.run(task)
    tasks[0].wait_begun()
    tasks[1].wait_begun()
    assert len(pool) == 2
    assert not tasks[2].begun.is_set()
    assert not pool.has_room
    tasks[0].end()
    tasks[2].wait_begun()
    for task in tasks:
        task.end()
    wait_idle(pool)
    assert {task.thread for task in tasks} == {tasks[0].thread, tasks[1].thread}


def test_a_larger_size_starts_waiting_tasks(make_pool: MakePool) -> None:
    pool = make_pool(1, limit=3)
    tasks = [Task() for _ in range(3)]
    for task in tasks:
        pool.run(task)
    tasks[0].wait_begun()
    pool.resize(3, 4)
    for task in tasks:
        task.wait_begun()
    assert (len(pool), pool.has_room) == (3, True)
    for task in tasks:
        task.end()


def test_a_larger_limit_admits_a_task_that_waits(make_pool: MakePool) -> None:
    pool = make_pool(1)
    first, second = Task(), Task()
    pool.run(first)
    running = Background(pool.run, second)
    running.join(0.02)
    pool.resize(1, 2)
    running.result()
    first.end()
    second.end()


def test_a_smaller_size_ends_workers(make_pool: MakePool) -> None:
    pool = make_pool(3)
    tasks = [Task() for _ in range(3)]
    for task in tasks:
        pool.run(task)
    for task in tasks:
        task.wait_begun()
    pool.resize(1, 1)
    assert not pool.has_room
    for task in tasks:
        task.end()
    threads = [task.thread for task in tasks]
    wait_idle(pool)
    again = Task()
    pool.run(again)
    again.wait_begun()
    again.end()
    wait_idle(pool)
    with pool._changed:
        assert len(pool) == 1
    for thread in threads:
        assert thread is not None
        if thread is not again.thread:
            thread.join(LIMIT)


def test_a_smaller_size_ends_idle_workers(make_pool: MakePool) -> None:
    pool = make_pool(2)
    tasks = [Task(), Task()]
    for task in tasks:
        pool.run(task)
    for task in tasks:
        task.wait_begun()
        task.end()
    wait_idle(pool)
    pool.resize(1, 1)
    left = [task.thread for task in tasks if task.thread is not None]
    while len([thread for thread in left if thread.is_alive()]) > 1:
        for thread in left:
            thread.join(0.01)
    again = Task()
    pool.run(again)
    again.wait_begun()
    again.end()


def test_no_thread_left_for_a_larger_size(
    make_pool: MakePool, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make_pool(1, limit=2)
    tasks = [Task(), Task()]
    for task in tasks:
        pool.run(task)
    tasks[0].wait_begun()
    request.getfixturevalue("_no_threads")
    pool.resize(2, 2)
    assert "going on with 1 workers" in caplog.text
    for task in tasks:
        task.end()
        task.wait_begun()


def test_run_waits_for_a_place(make_pool: MakePool) -> None:
    pool = make_pool(1)
    first, second = Task(), Task()
    pool.run(first)
    first.wait_begun()
    running = Background(pool.run, second)
    running.join(0.02)
    assert running.is_alive()
    first.end()
    running.result()
    second.wait_begun()
    second.end()


def test_it_reports_when_there_is_room_again(make_pool: MakePool) -> None:
    reported = threading.Semaphore(0)
    pool = make_pool(2, on_room=reported.release)
    first, second = Task(), Task()
    pool.run(first)
    first.wait_begun()
    first.end()
    wait_idle(pool)
    assert not reported.acquire(blocking=False)  # there was room all the time
    first = Task()
    pool.run(first)
    pool.run(second)
    first.end()
    assert reported.acquire(timeout=LIMIT)
    second.end()
    wait_idle(pool)
    assert not reported.acquire(blocking=False)


def test_idle_workers_end(make_pool: MakePool) -> None:
    pool = make_pool(2, idle_timeout=0.001)
    task = Task()
    pool.run(task)
    task.wait_begun()
    task.end()
    assert task.thread is not None
    task.thread.join(LIMIT)
    assert len(pool) == 0
    again = Task()
    pool.run(again)
    again.wait_begun()
    again.end()


def test_a_worker_that_ends_while_a_task_arrives_is_replaced(make_pool: MakePool) -> None:
    pool = make_pool(1)
    leaving, left = threading.Event(), threading.Event()
    original = pool._next_task

    def leave_once() -> Any:
        if leaving.is_set():
            return original()
        leaving.set()
        assert left.wait(LIMIT)
        return None  # idle for too long, just when the next task is put

    pool._next_task = leave_once  # type: ignore[method-assign]
    pool._start_worker()
    assert leaving.wait(LIMIT)
    task = Task()
    pool.run(task)
    left.set()
    task.wait_begun()
    task.end()


def test_a_worker_that_fails_is_replaced(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)  # silent about exits
    pool = make_pool(1, limit=2)
    dying, task = Task(), Task()

    def die() -> None:
        dying()
        raise SystemExit

    pool.run(die)
    pool.run(task)
    dying.wait_begun()
    dying.end()
    task.wait_begun()
    assert len(pool) == 1
    assert dying.thread is not None
    dying.thread.join(LIMIT)
    assert task.thread is not dying.thread
    task.end()
    wait_idle(pool)


@pytest.fixture
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)


@pytest.mark.usefixtures("_no_threads")
def test_without_any_thread_it_raises(make_pool: MakePool) -> None:
    pool = make_pool(2)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        pool.run(Task())
    assert (len(pool), pool.has_room, pool._busy) == (0, True, 0)
    assert pool.drop_waiting() == []


def test_without_another_thread_it_continues_with_its_threads(
    make_pool: MakePool, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make_pool(2)
    first, second = Task(), Task()
    pool.run(first)
    first.wait_begun()
    request.getfixturevalue("_no_threads")
    pool.run(second)
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "everserve")
    assert "going on with 1 workers" in record.getMessage()
    first.end()
    second.wait_begun()
    second.end()
    wait_idle(pool)


def test_waiting_tasks_can_be_removed(make_pool: MakePool) -> None:
    reported = threading.Semaphore(0)
    pool = make_pool(1, limit=3, on_room=reported.release)
    task = Task()
    pool.run(task)
    task.wait_begun()
    pool.run(print, "a", 1)
    pool.run(print, "b", 2)
    assert pool.drop_waiting() == [("a", 1), ("b", 2)]
    assert pool.has_room
    assert reported.acquire(timeout=LIMIT)
    task.end()
    wait_idle(pool)


def test_removing_tasks_does_not_keep_a_worker_that_must_end(make_pool: MakePool) -> None:
    pool = make_pool(1, limit=2)
    task = Task()
    pool.run(task)
    task.wait_begun()
    pool.run(print, "not printed")
    closing = Background(pool.close, wait=True)
    assert pool._changed.acquire()
    pool._changed.release()
    while not pool.closed:
        pass
    assert pool.drop_waiting() == [("not printed",)]
    task.end()
    closing.result()
    assert len(pool) == 0


def test_closing_waits_for_started_tasks(make_pool: MakePool) -> None:
    pool = make_pool(2)
    task = Task()
    pool.run(task)
    task.wait_begun()
    closing = Background(pool.close, wait=True)
    closing.join(0.02)
    assert closing.is_alive()
    task.end()
    closing.result()
    assert pool.closed


def test_closing_from_a_worker_does_not_wait_for_itself(make_pool: MakePool) -> None:
    pool = make_pool(2)
    done = threading.Event()

    def close() -> None:
        pool.close(wait=True)
        done.set()

    pool.run(close)
    assert done.wait(LIMIT)


@pytest.mark.parametrize("daemon", [True, False])
def test_the_workers_names_and_kinds(make_pool: MakePool, daemon: bool) -> None:
    pool = make_pool(1, daemon=daemon, name="Server")
    task = Task()
    pool.run(task)
    task.wait_begun()
    assert task.thread is not None
    assert (task.thread.name, task.thread.daemon) == ("Server-1", daemon)
    task.end()


def test_a_worker_that_waits_keeps_nothing_of_its_last_task_alive(make_pool: MakePool) -> None:
    pool, freed = make_pool(1), threading.Event()
    task = Task()
    weakref.finalize(task, freed.set)
    pool.run(task)
    task.wait_begun()
    task.end()
    del task
    assert freed.wait(LIMIT)
    assert len(pool) == 1
