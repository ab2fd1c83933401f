"""What all tests share: a run says first which engine is under test, and where it is from."""

from __future__ import annotations

import gc
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

import everserve


def pytest_report_header(config: pytest.Config) -> list[str]:
    place = Path(everserve.__file__).parent
    engine = getattr(everserve, "engine", "python")
    return [f"everserve: {engine} engine on Python {platform.python_version()}, from {place}"]


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
