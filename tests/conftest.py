"""What all tests share: a run says first which engine is under test, and where it is from."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

import everserve


def pytest_report_header(config: pytest.Config) -> list[str]:
    place = Path(everserve.__file__).parent
    engine = getattr(everserve, "engine", "python")
    return [f"everserve: {engine} engine on Python {platform.python_version()}, from {place}"]
