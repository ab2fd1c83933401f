"""A short soak test; `soak.py` explains how to run a long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.engines import loaded

SOAK = Path(__file__).with_name("soak.py")


@pytest.mark.parametrize("name", ["native", "python"])
def test_connections_leave_nothing(name: str) -> None:
    loaded(name)
    found = subprocess.run(
        [sys.executable, SOAK, "--count", "4000", "--engine", name],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.endswith("nothing grew\n")
