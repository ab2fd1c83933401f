"""Each regression test of this folder shows a defect: it fails on the standard library."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

HERE = Path(__file__)
PLAIN = ["-p", "no:cacheprovider", "-p", "no:unraisableexception", "-p", "no:threadexception"]


def outcomes(selection: str, folder: Path) -> dict[str, bool]:
    """Whether each of the selected tests passes on the standard library."""
    report = folder / "report.xml"
    command = [sys.executable, "-W", "ignore", "-m", "pytest", str(HERE.parent), *PLAIN]
    command += ["--against", "stdlib", "-m", selection, f"--junitxml={report}"]
    command += [f"--deselect={HERE}", "--override-ini=filterwarnings="]
    environment = {**os.environ, "PYTEST_ADDOPTS": ""}
    subprocess.run(
        command, cwd=HERE.parents[2], env=environment, capture_output=True, timeout=50, check=False
    )
    return {
        f"{case.get('classname')}::{case.get('name')}": case.find("failure") is None
        and case.find("error") is None
        for case in ElementTree.parse(report).iter("testcase")
        if case.find("skipped") is None
    }


@pytest.fixture(autouse=True)
def _on_everserve_only(against: str) -> None:
    if against != "everserve":
        pytest.skip("runs the others against the standard library by itself")


def test_what_was_repaired_fails_there(tmp_path: Path) -> None:
    passed = outcomes("not new and not documented", tmp_path)
    assert len(passed) > 40
    assert [name for name, is_passed in passed.items() if is_passed] == []


def test_what_is_documented_passes_there(tmp_path: Path) -> None:
    passed = outcomes("documented", tmp_path)
    assert len(passed) > 20
    assert [name for name, is_passed in passed.items() if not is_passed] == []
