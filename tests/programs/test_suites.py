"""The tests of a tiny program run on the standard library and on everserve."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tools.programs import comparison, suites
from tools.programs.cache import Folder, link_everserve
from tools.programs.catalogue import STRATEGIES, Difference, Program
from tools.programs.processes import Processes
from tools.programs.suites import Run

pytestmark = pytest.mark.usefixtures("unmeasured")

TESTS = """
import http.server
import socketserver
import subprocess
import sys
import threading

import pytest

SHOW = "import http.server; print(http.server.ThreadingHTTPServer.__mro__[1].__name__)"


def test_agrees():
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
        assert server.server_address[1]


def test_mixin():
    assert http.server.ThreadingHTTPServer.__mro__[1].__name__ == "ThreadingMixIn"


def test_child():
    shown = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True).stdout
    assert shown == "ThreadingMixIn\\n"


@pytest.mark.skip(reason="not today")
def test_skipped():
    pass


def test_fails():
    assert False
"""


def folder(tmp_path: Path, **fields: object) -> Folder:
    program = Program("tiny", "1.0", "aa", ["test_tiny.py"], **fields)  # type: ignore[arg-type]
    folder = Folder(program, Processes(), tmp_path)
    folder.source.mkdir(parents=True)
    (folder.source / "test_tiny.py").write_text(TESTS)
    folder.python = Path(sys.executable)
    return folder


def test_a_program_is_compared_in_a_run_of_each(tmp_path: Path) -> None:
    """Threads are left out: to the program they look like the standard library."""
    tiny = folder(tmp_path, differences=[Difference(["test_tiny.test_mixin"], "why", ["fibers"])])
    everserve = link_everserve(sys.executable, tmp_path)
    runs = {
        strategy: suites.run(tiny, strategy, everserve, tiny.processes)
        for strategy in ("stdlib", "fibers", "pool")
    }
    assert runs["stdlib"].outcomes == {
        "test_tiny.test_agrees": "passed",
        "test_tiny.test_mixin": "passed",
        "test_tiny.test_child": "passed",
        "test_tiny.test_skipped": "skipped",
        "test_tiny.test_fails": "failed",
    }
    found = comparison.deviations(tiny.program, {**runs, "threads": runs["stdlib"]})
    assert [(one.strategy, one.test, bool(one.explanation)) for one in found] == [
        ("pool", "test_tiny.test_child", False),
        ("pool", "test_tiny.test_mixin", False),
        ("fibers", "test_tiny.test_child", False),
        ("fibers", "test_tiny.test_mixin", True),
    ]


def test_a_run_without_everserve_is_in_trouble(tmp_path: Path) -> None:
    """It must not go on, on the standard library."""
    tiny = folder(tmp_path)
    run = suites.run(tiny, STRATEGIES[0], tmp_path / "nothing", tiny.processes)
    output = (tiny.path / "threads/output.txt").read_text()
    if "No module named 'everserve'" in output:  # else the environment has it itself
        assert run == Run({}, "ended with status 70", run.seconds)


def test_the_worse_outcome_of_a_test_counts(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testcase classname="t" name="a"><error/></testcase>'
        '<testcase classname="t" name="a"/><testcase classname="" name="b"/></testsuites>'
    )
    assert suites.read(report) == {"t.a": "failed", "b": "passed"}


def test_half_a_report_is_none(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text("<testsuites><testcase")
    assert suites.read(report) == {}
