"""CPython's own test suites pass, unmodified, with everserve in the place of `socketserver`.

Each suite runs in its own interpreters: on everserve, with threads and with fibers, and on the
unchanged standard library. The first and the last must run and skip the same tests, so no test
passes because it did not run. All suites run side by side, because they sleep most of the time.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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


VERSIONS: dict[str, list[str]] = {
    "everserve": [],
    "stdlib": ["--with", "stdlib"],
    "fibers": ["--mixin", "FiberMixIn"],
}
AT_A_TIME = 8  # runs: those of the two suites that sleep, three each, and two of the others


class Run:
    """One suite in one fresh interpreter."""

    def __init__(self, suite: str, version: str, folder: Path) -> None:
        self.suite = suite
        self.folder = folder / f"{suite}-{version}"
        self.folder.mkdir()
        self.report = self.folder / "report.json"
        self.output = self.folder / "output.txt"
        command = [sys.executable, "-P", str(RUNNER), suite, *VERSIONS[version]]
        command += ["--report", str(self.report), "--limit", str(LIMIT)]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def result(self) -> dict[str, Any]:
        status = self.process.wait(LIMIT + 10)
        output = self.output.read_text("utf-8", "replace")
        assert self.report.exists(), f"{self.suite} ended with status {status}:\n{output[-8000:]}"
        report: dict[str, Any] = json.loads(self.report.read_text("utf-8"))
        return {**report, "status": status, "output": output}

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)


class Runs:
    """The runs of some suites in all versions, a few at a time and in the order of `SUITES`."""

    def __init__(self, suites: set[str], folder: Path) -> None:
        self._folder = folder
        self._running: set[Run] = set()
        self._lock = threading.Lock()
        self._ended = False
        self._pool = ThreadPoolExecutor(AT_A_TIME)
        self._reports: dict[tuple[str, str], Future[dict[str, Any]]] = {
            (suite, version): self._pool.submit(self._run, suite, version)
            for suite in SUITES
            if suite in suites
            for version in VERSIONS
        }

    def report(self, suite: str, version: str) -> dict[str, Any]:
        """Wait for the report of that run."""
        return self._reports[suite, version].result()

    def end(self) -> None:
        with self._lock:
            self._ended = True
            for run in self._running:
                run.end()
        self._pool.shutdown(cancel_futures=True)

    def _run(self, suite: str, version: str) -> dict[str, Any]:
        with self._lock:
            if self._ended:
                raise RuntimeError("the session ended before this run began")
            run = Run(suite, version, self._folder)
            self._running.add(run)
        return run.result()


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, unmeasured: None
) -> Iterator[Runs]:
    """The runs of the suites that this session selects; they start at once."""
    specs = (getattr(item, "callspec", None) for item in request.session.items)
    suites = {spec.params["suite"] for spec in specs if spec and "suite" in spec.params}
    runs = Runs(suites, tmp_path_factory.mktemp("suites"))
    yield runs
    runs.end()


def counts(report: dict[str, Any]) -> str:
    return f"{report['run']}/{len(report['failed'])}/{len(report['skipped'])}"


@pytest.mark.parametrize("suite", SUITES)
def test_suite_passes_on_everserve(
    suite: str, runs: Runs, record_property: Callable[[str, object], None]
) -> None:
    ours, theirs = runs.report(suite, "everserve"), runs.report(suite, "stdlib")
    print(f"{suite}: run/failed/skipped {counts(ours)}, standard library {counts(theirs)}")
    record_property("suite", suite)
    record_property("everserve", counts(ours))
    record_property("stdlib", counts(theirs))

    news = sorted(set(ours["failed"]) - set(theirs["failed"]))
    assert not news, f"failed on everserve alone: {news}\n{ours['output'][-12000:]}"
    assert ours["status"] in (0, theirs["status"]), ours["output"][-4000:]
    assert ours["run"] > 0
    assert ours["run"] == theirs["run"]
    assert ours["ids"] == theirs["ids"]
    assert ours["skipped"] == theirs["skipped"]
    assert ours["left_behind"] <= theirs["left_behind"], f"left behind:\n{ours['output'][-4000:]}"


ABOUT_THREADS = {
    "test_threading_not_handled",  # SystemExit goes to threading.excepthook
    "test_threads_reaped",  # looks into _threads
}
"""The tests of `test_socketserver` that have no meaning without threads."""


@pytest.mark.parametrize("suite", SUITES)
def test_suite_passes_with_fibers_in_place_of_threads(suite: str, runs: Runs) -> None:
    ours = runs.report(suite, "fibers")
    failed = {name.split()[0].rpartition(".")[2] for name in ours["failed"]}
    assert failed <= ABOUT_THREADS, ours["output"][-12000:]
    assert ours["run"] > 0
