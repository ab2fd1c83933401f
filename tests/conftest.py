"""Fixtures of all tests. The header of a run names the engine under test, and its folder."""

from __future__ import annotations

import gc
import os
import platform
import posix
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from tests.engines import each_engine as each_engine
from tests.threads import Exhausted

import everserve

# The same examples in each run, and no limit of time for one: the machine may be busy.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")


@hypothesis.given(hypothesis.strategies.none())
@hypothesis.settings(max_examples=1, database=None)
def _prepare_hypothesis(_: None) -> None:
    """Let it make its random generator, and look for what refers to it.

    It would not find that among the objects that `_leftovers_fail_this_module` has frozen.
    """


def pytest_report_header(config: pytest.Config) -> list[str]:
    place = Path(everserve.__file__).parent
    engine = getattr(everserve, "engine", "python")
    return [f"everserve: {engine} engine on Python {platform.python_version()}, from {place}"]


MEASURED_CHILDREN = 2  # of each test: saving the coverage of one takes 0.1 s
_forks = 0  # since the test began


def pytest_configure() -> None:
    """Under coverage, measure only the first forked children of each test.

    The others would cover the same lines again: the contract tests alone fork a thousand times.
    """
    if "coverage" in sys.modules and sys.modules["coverage"].Coverage.current() is not None:
        os.register_at_fork(before=_count_fork, after_in_child=_stop_measuring)


def pytest_runtest_setup() -> None:
    global _forks
    _forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


def _stop_measuring() -> None:
    if _forks > MEASURED_CHILDREN:
        sys.modules["coverage"].Coverage.current().stop()
        os._exit = posix._exit  # coverage's own saves the measurement


@pytest.fixture(scope="module")
def unmeasured() -> Iterator[None]:
    """Coverage does not measure the processes that the tests of this module start.

    They would cover the lines that others cover, and take 0.35 s of a processor each instead of 0.15.
    """
    with pytest.MonkeyPatch.context() as variables:
        variables.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        yield


@pytest.fixture
def exhausted(monkeypatch: pytest.MonkeyPatch) -> Exhausted:
    """The system has no threads left, until the test calls ``exhausted.end()``."""
    return Exhausted(monkeypatch)


@pytest.fixture(scope="session", autouse=True)
def _final_collection() -> Iterator[None]:
    _prepare_hypothesis()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module", autouse=True)
def _leftovers_fail_this_module() -> Iterator[None]:
    """A socket that a test did not close is an error of its own module, not of a later one.

    The collector skips the objects from before the module (pytest's and imported ones): a full
    collection of these takes 0.1 s each time, or 0.4 s under ``-X dev``.
    """
    gc.freeze()
    yield
    gc.collect()
