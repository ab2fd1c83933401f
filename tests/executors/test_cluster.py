"""Dask as its client and its scheduler are seen here; ``tests/examples`` has a real cluster."""

from __future__ import annotations

import asyncio
import importlib.util
import pickle
from concurrent.futures import Executor, Future
from types import SimpleNamespace
from typing import Any

import pytest
from tests.executors.functions import double

from everserve.errors import OptionError
from everserve.executors import cluster
from everserve.executors.cluster import ONCE, OncePlugin
from everserve.executors.execution import Execution
from everserve.executors.opening import close_executor, is_usable
from everserve.executors.plan import ExecutorPlan


class Client:
    """A Dask client."""

    def __init__(self) -> None:
        self.status = "running"

    def close(self) -> None:
        self.status = "closed"


class ClientExecutor(Executor):
    """The executor of a Dask client."""

    __module__ = "distributed.cfexecutor"

    def __init__(self) -> None:
        self._client = Client()
        self.keys: list[str] = []

    def submit(self, fn: Any, /, *args: Any, key: str = "", **kwargs: Any) -> Future[Any]:
        self.keys.append(key)
        future: Future[Any] = Future()
        future.set_result(fn(*args))
        return future


class KilledWorker(Exception):
    """What Dask raises, with the worker that died last."""

    def __init__(self) -> None:
        super().__init__("4 workers died")
        self.last_worker = SimpleNamespace(address="tcp://10.0.0.7:4242")


def test_each_call_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "pack", pickle.dumps)
    executor = ClientExecutor()
    execution = Execution(executor, print, once=False)
    execution.open()
    for idempotent in (True, False, False):
        future = execution.start(double, b"a", idempotent=idempotent)
        assert execution.result(future) == b"aa"
    assert [key.startswith(ONCE) for key in executor.keys] == [False, True, True]
    assert len(set(executor.keys)) == 3
    assert execution.out_of_process


def test_an_executor_whose_client_has_given_up() -> None:
    executor = ClientExecutor()
    plan = ExecutorPlan("dask", address="here:1")
    assert cluster.is_dask(executor)
    assert is_usable(plan, executor)
    close_executor(executor, kill=True)
    assert not is_usable(plan, executor)


def test_what_says_that_a_worker_is_lost() -> None:
    error = KilledWorker()
    assert cluster.is_lost(error)
    assert not cluster.is_lost(ValueError())
    assert "tcp://10.0.0.7:4242 has died" in str(cluster.plain(error))
    other = ValueError()
    assert cluster.plain(other) is other


def test_the_scheduler_gives_a_call_up_at_once() -> None:
    keys = [f"{ONCE}1", "another"]
    tasks = {key: SimpleNamespace(suspicious=0, run_spec=object()) for key in keys}
    scheduler = SimpleNamespace(allowed_failures=3, tasks=tasks)
    plugin = OncePlugin()
    asyncio.run(plugin.start(scheduler))
    plugin.update_graph(scheduler, tasks=keys, client="c")
    assert [tasks[key].suspicious for key in keys] == [3, 0]
    for key in keys:
        plugin.transition(key, "waiting", "processing")
        assert tasks[key].run_spec is not None
        plugin.transition(key, "processing", "memory")
    assert [tasks[key].run_spec is None for key in keys] == [True, False]


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="needs Dask")
@pytest.mark.filterwarnings("ignore")
def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_TIMEOUT", 0.1)
    with pytest.raises(OptionError, match="no scheduler answers there"):
        cluster.connect("127.0.0.1:1")
