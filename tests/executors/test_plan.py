"""The values of ``executor``: which are accepted, and which pickle what they are given."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest

from everserve.errors import OptionError
from everserve.executors import plan
from everserve.executors.plan import (
    ExecutorPlan,
    check_executor,
    forks_fault,
    is_of_interpreters,
    is_out_of_process,
)
from everserve.options import OPTIONS


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("threads:8", ExecutorPlan("threads", 8)),
        ("processes:4", ExecutorPlan("processes", 4)),
        ("interpreters:4", ExecutorPlan("interpreters", 4)),
        ("dask://scheduler:8786", ExecutorPlan("dask", address="scheduler:8786")),
        ("dask://[::1]:8786", ExecutorPlan("dask", address="[::1]:8786")),
        ("threads", None),
        ("threads:0", None),
        ("threads:-1", None),
        ("threads:8 ", None),
        ("threads:999999", None),
        ("greenlets:4", None),
        ("dask://scheduler", None),
        ("", None),
    ],
)
def test_texts(text: str, wanted: ExecutorPlan | None) -> None:
    assert ExecutorPlan.parse(text) == wanted


@pytest.mark.parametrize("value", ["threads", 4, b"threads:4", ThreadPoolExecutor, object()])
def test_what_is_none_is_refused(value: Any) -> None:
    with pytest.raises(OptionError, match=r"executor = .*: expected a concurrent.futures.Executor"):
        OPTIONS["executor"].check(value)


def test_interpreters_need_a_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    with pytest.raises(OptionError, match=r"interpreters need Python 3\.14; take processes"):
        check_executor("interpreters:4")
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    assert check_executor("interpreters:4") == "interpreters:4"


def test_dask_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_has_dask", lambda: False)
    with pytest.raises(OptionError, match=r"pip install 'everserve\[dask\]'"):
        check_executor("dask://here:8786")
    monkeypatch.setattr(plan, "_has_dask", lambda: True)
    assert check_executor("dask://here:8786") == "dask://here:8786"


class Pickling(Executor):
    """An executor that says where it runs."""

    out_of_process = True


class OfACluster(Executor):
    """As that of a Dask client."""

    __module__ = "distributed.cfexecutor"


def test_what_runs_out_of_process() -> None:
    spawning = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    with ThreadPoolExecutor(1) as threads, spawning as processes:
        assert not is_out_of_process(threads)
        assert is_out_of_process(processes)
    assert is_out_of_process(Pickling())
    assert is_out_of_process(OfACluster())
    assert not is_out_of_process("threads:4")
    assert is_out_of_process("processes:4")


class InterpreterPoolExecutor(Executor):
    """As that of Python 3.14."""


def test_what_runs_in_interpreters() -> None:
    assert is_out_of_process(InterpreterPoolExecutor())
    assert is_of_interpreters(InterpreterPoolExecutor())
    assert is_of_interpreters("interpreters:4")
    assert not is_of_interpreters("processes:4")
    assert not is_of_interpreters(Pickling())


def test_workers_that_are_forked_are_refused() -> None:
    for method, is_refused in (("fork", True), ("spawn", False), ("forkserver", False)):
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(1, mp_context=context) as executor:
            fault = forks_fault(executor)
            assert (fault is not None) is is_refused
            assert fault is None or "get_context('spawn')" in fault
    with ThreadPoolExecutor(1) as threads:
        assert forks_fault(threads) is None
