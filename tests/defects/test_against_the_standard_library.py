"""Each regression test of this folder shows a defect: it fails on the standard library."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

HERE = Path(__file__)
PLAIN = ["-p", "no:cacheprovider", "-p", "no:unraisableexception", "-p", "no:threadexception"]
REPAIRED, DOCUMENTED = "not new and not documented", "documented"


class Run:
    """The tests of a selection, on the standard library."""

    def __init__(self, selection: str, folder: Path) -> None:
        self._report = folder / "report.xml"
        command = [sys.executable, "-W", "ignore", "-m", "pytest", str(HERE.parent), *PLAIN]
        command += ["--against", "stdlib", "-m", selection, f"--junitxml={self._report}"]
        command += [f"--deselect={HERE}", "--override-ini=filterwarnings="]
        self._process = subprocess.Popen(
            command,
            cwd=HERE.parents[2],
            env={**os.environ, "PYTEST_ADDOPTS": ""},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def outcomes(self) -> dict[str, bool]:
        """Whether each test has passed."""
        self._process.wait(50)
        return {
            f"{case.get('classname')}::{case.get('name')}": case.find("failure") is None
            and case.find("error") is None
            for case in ElementTree.parse(self._report).iter("testcase")
            if case.find("skipped") is None
        }

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def runs(
    unmeasured: None, against: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Run]]:
    """Both runs, at the same time: they mostly wait for time limits."""
    if against != "everserve":
        pytest.skip("runs the others against the standard library by itself")
    runs = {
        selection: Run(selection, tmp_path_factory.mktemp("run"))
        for selection in (REPAIRED, DOCUMENTED)
    }
    yield runs
    for run in runs.values():
        run.end()


def test_repaired_defects_fail_there(runs: dict[str, Run]) -> None:
    passed = runs[REPAIRED].outcomes()
    assert len(passed) > 40
    assert [name for name, is_passed in passed.items() if is_passed] == []


def test_documented_behaviour_passes_there(runs: dict[str, Run]) -> None:
    passed = runs[DOCUMENTED].outcomes()
    assert len(passed) > 20
    assert [name for name, is_passed in passed.items() if not is_passed] == []
