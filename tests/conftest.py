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


@pytest.fixture(scope="module", autouse=True)
def _leftovers_are_told_here() -> Iterator[None]:
    """A socket that a test forgot is an error of its own module, not of one that runs later."""
    yield
    gc.collect()
