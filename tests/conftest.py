"""What all tests share: a run says first which engine is under test, and where it is from."""

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

import everserve

# The same examples in each run, and no limit of time for one: the machine may be busy.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")


def pytest_report_header(config: pytest.Config) -> list[str]:
    place = Path(everserve.__file__).parent
    engine = getattr(everserve, "engine", "python")
    return [f"everserve: {engine} engine on Python {platform.python_version()}, from {place}"]


MEASURED_CHILDREN = 2  # of each test: what one takes to write down its coverage is 0.1 s
_forks = 0  # since the test began


def pytest_configure() -> None:
    """Under coverage, let the children of fork go unmeasured, but for the first of each test.

    They would show the same lines again: the contract alone forks a thousand times.
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
        os._exit = posix._exit  # coverage's own writes down what was measured


@pytest.fixture(scope="module")
def unmeasured() -> Iterator[None]:
    """Coverage does not follow into the processes that the tests of this module start.

    They would show the lines that others show, at 0.35 s of a processor each instead of 0.15.
    """
    with pytest.MonkeyPatch.context() as variables:
        variables.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _all_is_collected_in_the_end() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.fixture(scope="module", autouse=True)
def _leftovers_are_told_here() -> Iterator[None]:
    """A socket that a test forgot is an error of its own module, not of one that runs later.

    The collector passes over what was there before the module began, which is pytest's and what
    is imported: a full collection of that takes 0.1 s, or 0.4 s under ``-X dev``, each time.
    """
    gc.freeze()
    yield
    gc.collect()
