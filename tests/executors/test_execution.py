"""The run of messages in an executor: again where a worker was lost, or not; what is reported."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest
from tests.executors.functions import double

from everserve.errors import LostWorkerError, OptionError
from everserve.events import WorkerLost
from everserve.executors import execution as module
from everserve.executors.execution import MOST_RUNS, Execution
from everserve.executors.processes import WorkerDied
from everserve.executors.remote import run_message


class Fake(Executor):
    """Keeps what it is given, until the test decides."""

    out_of_process = True

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []
        self.error: Exception | None = None
        self.is_shut_down = False

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.error is not None:
            raise self.error
        self.call = (fn, args)
        self.futures.append(Future())
        return self.futures[-1]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.is_shut_down = True


class Reports(list[WorkerLost]):
    """The events of losses."""

    def __call__(self, event: WorkerLost) -> None:
        self.append(event)

    @property
    def again(self) -> list[bool]:
        return [event.again for event in self]


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def execution(fake: Fake, reports: Reports) -> Execution:
    made = Execution(fake, reports, once=False)
    made.open()
    return made


def test_a_result(execution: Execution, fake: Fake) -> None:
    future = execution.start(double, b"a")
    assert fake.call == (run_message, (double, b"a"))
    fake.futures[0].set_result(run_message(double, b"a"))
    assert execution.result(future) == b"aa"


def test_in_this_process_an_error_is_that_of_the_handler() -> None:
    with ThreadPoolExecutor(1) as threads:
        execution = Execution(threads, Reports(), once=True)
        assert execution.result(execution.start(double, b"a")) == b"aa"
        with pytest.raises(ValueError, match="no such"):
            execution.result(execution.start(double, b"error"))
        future = execution.start(_break)
        with pytest.raises(BrokenExecutor, match="of the handler"):
            execution.result(future)
        execution.close(kill=True)
        assert threads.submit(double, 1).result() == 2  # it is the program's: left open


def _break() -> None:
    raise BrokenExecutor("of the handler")


def test_a_lost_message_is_not_run_again(
    execution: Execution, fake: Fake, reports: Reports
) -> None:
    future = execution.start(double, b"a")
    fake.futures[0].set_exception(BrokenExecutor("a worker has died"))
    with pytest.raises(LostWorkerError, match=r"Fake: no worker .*: a worker has died"):
        execution.result(future)
    assert reports.again == [False]
    assert "the message is lost" in str(reports[0])


def test_one_that_is_idempotent_is(execution: Execution, fake: Fake, reports: Reports) -> None:
    future = execution.start(double, b"a", idempotent=True)
    fake.futures[0].set_exception(BrokenExecutor("a worker has died"))
    fake.futures[1].cancel()
    fake.futures[1].set_running_or_notify_cancel()
    fake.futures[2].set_result(run_message(double, b"a"))
    assert execution.result(future) == b"aa"
    assert reports.again == [True, True]
    assert "runs again" in str(reports[0])


def test_but_not_for_ever(execution: Execution, fake: Fake, reports: Reports) -> None:
    future = execution.start(double, b"a", idempotent=True)
    for number in range(MOST_RUNS):
        fake.futures[number].set_exception(BrokenExecutor("a worker has died"))
    with pytest.raises(LostWorkerError):
        execution.result(future)
    assert len(fake.futures) == MOST_RUNS
    assert reports.again == [True] * (MOST_RUNS - 1) + [False]


def test_one_that_no_worker_had_begun_runs_in_any_case(execution: Execution, fake: Fake) -> None:
    future = execution.start(double, b"a")
    fake.futures[0].set_exception(WorkerDied("it did not start", begun=False))
    fake.futures[1].set_result(run_message(double, b"a"))
    assert execution.result(future) == b"aa"


def test_another_error_of_the_executor_is_one_of_the_message(
    execution: Execution, fake: Fake, reports: Reports
) -> None:
    future = execution.start(double, b"a", idempotent=True)
    fake.futures[0].set_exception(TypeError("cannot be pickled"))
    fake.error = TypeError("cannot be pickled either")
    for each in (future, execution.start(double, b"a", idempotent=True)):
        with pytest.raises(TypeError, match="cannot be pickled"):
            execution.result(each)
    assert reports == []


def test_a_call_may_be_cancelled_while_it_runs(execution: Execution, fake: Fake) -> None:
    future = execution.start(double, b"a", idempotent=True)
    fake.futures[0].set_running_or_notify_cancel()
    assert future.cancel()
    fake.futures[0].set_exception(BrokenExecutor("too late"))
    assert len(fake.futures) == 1
    waiting = execution.start(double, b"a")
    waiting.cancel()
    assert fake.futures[1].cancelled()
    third = execution.start(double, b"a")
    fake.futures[2].set_running_or_notify_cancel()
    third.cancel()
    fake.futures[2].set_result(b"")
    assert third.cancelled()


def test_a_broken_executor_of_the_program_is_reported(
    execution: Execution, fake: Fake, reports: Reports
) -> None:
    fake.error = BrokenExecutor("it is broken")
    with pytest.raises(LostWorkerError, match="it is broken"):
        execution.result(execution.start(double, b"a", idempotent=True))
    assert reports.again == [False]


def test_one_of_ours_is_made_anew(monkeypatch: pytest.MonkeyPatch, reports: Reports) -> None:
    made: list[Any] = []

    def open_executor(plan: object) -> Fake:
        made.append(Fake())
        return made[-1]

    monkeypatch.setattr(module, "open_executor", open_executor)
    execution = Execution("interpreters:2", reports, once=False)
    execution.open()
    execution.open()
    assert len(made) == 1
    future = execution.start(double, b"a")
    made[0]._broken = "a crash"
    made[0].futures[0].set_exception(BrokenExecutor("a crash"))
    with pytest.raises(LostWorkerError):
        execution.result(future)
    assert made[0].is_shut_down
    assert execution.executor is made[1]
    made[1]._broken, made[1].error = "a crash", BrokenExecutor("another crash")
    future = execution.start(double, b"a")
    made[2].futures[0].set_result(b"aa")
    assert execution.result(future) == b"aa"
    execution.close(kill=False)
    assert made[2].is_shut_down
    with pytest.raises(LostWorkerError, match="closed"):
        execution.result(execution.start(double, b"a"))
    assert len(reports) == 2


def test_a_cluster_that_stays_away(monkeypatch: pytest.MonkeyPatch, reports: Reports) -> None:
    first = Fake()
    answers: list[Any] = [first, OptionError("no scheduler answers"), Fake()]

    def open_executor(plan: object) -> Fake:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    def at_once(target: Any, *, name: str) -> object:
        target()
        return object()

    monkeypatch.setattr(module, "open_executor", open_executor)
    monkeypatch.setattr(module, "is_usable", lambda plan, executor: executor is not first)
    monkeypatch.setattr(module, "try_to_start", at_once)
    execution = Execution("dask://here:1", reports, once=False)
    execution.open()
    first.error = RuntimeError("the client is closed")
    with pytest.raises(LostWorkerError, match="the client is closed"):
        execution.result(execution.start(double, b"a"))
    assert [str(event.error) for event in reports] == [
        "the client is closed", "no scheduler answers",
    ]  # fmt: skip
    assert execution.executor is first
    future = execution.start(double, b"a")
    assert execution.executor is not first
    execution.executor.futures[0].set_result(run_message(double, b"a"))  # type: ignore[union-attr]
    assert execution.result(future) == b"aa"
