"""CPython's own test suites pass, unmodified, with everserve in the place of `socketserver`.

Each suite runs twice, at the same time and in interpreters of its own: on everserve, and on the
untouched standard library. Both must run the same tests and skip the same tests, so nothing
passes by not being run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.compat.runner import SUITES

RUNNER = Path(__file__).with_name("runner.py")
LIMIT = 240.0  # seconds; the slowest suite, test_xmlrpc, sleeps for 28 of them on an idle machine

pytestmark = [
    pytest.mark.timeout(LIMIT + 30),
    pytest.mark.skipif(
        importlib.util.find_spec("test.test_socketserver") is None,
        reason="this Python comes without CPython's tests (Debian has them in libpython3-testsuite)",
    ),
]


class Run:
    """One suite in one fresh interpreter."""

    def __init__(
        self, suite: str, server_module: str, folder: Path, mixin: str | None = None
    ) -> None:
        self.suite = suite
        self.folder = folder / (mixin or server_module)
        self.folder.mkdir()
        self.report = self.folder / "report.json"
        self.output = self.folder / "output.txt"
        command = [sys.executable, "-P", str(RUNNER), suite, "--with", server_module]
        command += ["--report", str(self.report), "--limit", str(LIMIT)]
        command += ["--mixin", mixin] if mixin else []
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def result(self) -> dict[str, Any]:
        status = self.process.wait(LIMIT + 10)
        said = self.output.read_text("utf-8", "replace")
        assert self.report.exists(), f"{self.suite} ended with status {status}:\n{said[-8000:]}"
        report: dict[str, Any] = json.loads(self.report.read_text("utf-8"))
        return {**report, "status": status, "said": said}

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def environment() -> dict[str, str]:
    """The variables of this process without those by which coverage enters child processes."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("COVERAGE_", "COV_"))}


def counts(report: dict[str, Any]) -> str:
    return f"{report['run']}/{len(report['failed'])}/{len(report['skipped'])}"


@pytest.mark.parametrize("suite", SUITES)
def test_suite_passes_on_everserve(
    suite: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    runs = [Run(suite, "everserve", tmp_path), Run(suite, "stdlib", tmp_path)]
    try:
        ours, theirs = (run.result() for run in runs)
    finally:
        for run in runs:
            run.end()

    print(f"{suite}: run/failed/skipped {counts(ours)}, standard library {counts(theirs)}")
    record_property("suite", suite)
    record_property("everserve", counts(ours))
    record_property("stdlib", counts(theirs))

    news = sorted(set(ours["failed"]) - set(theirs["failed"]))
    assert not news, f"failed on everserve alone: {news}\n{ours['said'][-12000:]}"
    assert ours["status"] in (0, theirs["status"]), ours["said"][-4000:]
    assert ours["run"] > 0
    assert ours["run"] == theirs["run"]
    assert ours["ids"] == theirs["ids"]
    assert ours["skipped"] == theirs["skipped"]
    assert ours["left_behind"] <= theirs["left_behind"], f"left behind:\n{ours['said'][-4000:]}"


ABOUT_THREADS = {
    "test_threading_not_handled",  # SystemExit goes to threading.excepthook
    "test_threads_reaped",  # looks into _threads
}
"""The tests of `test_socketserver` that have no meaning where there are no threads."""


@pytest.mark.parametrize("suite", SUITES)
def test_suite_passes_with_fibers_in_place_of_threads(suite: str, tmp_path: Path) -> None:
    run = Run(suite, "everserve", tmp_path, mixin="FiberMixIn")
    try:
        ours = run.result()
    finally:
        run.end()
    failed = {name.split()[0].rpartition(".")[2] for name in ours["failed"]}
    assert failed <= ABOUT_THREADS, ours["said"][-12000:]
    assert ours["run"] > 0
