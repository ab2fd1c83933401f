"""Run the tests of one program, once on the standard library and once in each strategy."""

from __future__ import annotations

import os
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools.environments import ROOT
from tools.programs.cache import Folder
from tools.programs.catalogue import STANDARD, STRATEGIES, Program
from tools.programs.processes import Processes

INSIDE = Path(__file__).with_name("inside")
A_TEST = 30  # seconds that one test may take
SOME_FAILED = "ended with status 1"  # of pytest


@dataclass(frozen=True)
class Run:
    """What the tests of a program did in one version: the outcome of each, by its name."""

    outcomes: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""  # why it is not the whole suite
    seconds: float = 0.0

    def count(self, outcome: str) -> int:
        return sum(one == outcome for one in self.outcomes.values())


def run_all(folder: Folder, everserve: Path, processes: Processes) -> dict[str, Run]:
    """The runs of one program, one after the other: tests may have a port of their own."""
    return {one: run(folder, one, everserve, processes) for one in (STANDARD, *STRATEGIES)}


def run(folder: Folder, strategy: str, everserve: Path, processes: Processes) -> Run:
    records = folder.path / strategy
    records.mkdir(exist_ok=True)
    report = records / "report.xml"
    report.unlink(missing_ok=True)
    began = time.monotonic()
    # Not in the cache: the path of a Unix socket in it would be too long.
    with tempfile.TemporaryDirectory(prefix="programs-", ignore_cleanup_errors=True) as temporary:
        ended = processes.run(
            command(folder, report),
            {**variables(folder.program, strategy, everserve), "TMPDIR": temporary},
            records / "output.txt",
            folder.program.limit,
            folder.source / folder.program.folder,
        )
    outcomes = read(report) if report.exists() else {}
    return Run(outcomes, "" if ended == SOME_FAILED else ended, time.monotonic() - began)


def command(folder: Folder, report: Path) -> list[str]:
    # A program's own options of pytest may ask for plug-ins that are of no interest here.
    options = ["-q", "-o", "addopts=", "-p", "no:cacheprovider", "-p", "replaced"]
    options += [
        f"--rootdir={folder.source}",
        f"--timeout={A_TEST}",
        f"--junitxml={report}",
        "-o",
        "junit_family=xunit1",
    ]
    return [str(folder.python), "-m", "pytest", *options, *folder.program.tests]


def variables(program: Program, strategy: str, everserve: Path) -> dict[str, str]:
    path = os.pathsep.join([str(INSIDE), program.variables.get("PYTHONPATH", "")])
    return {
        **program.variables,
        "PYTHONPATH": path.rstrip(os.pathsep),
        "PYTHONHASHSEED": "0",  # the order of parameters that are sets, and so the names of tests
        "PROGRAMS_RUNNER": str(ROOT / "tests/compat/runner.py"),
        "PROGRAMS_STRATEGY": strategy,
        "PROGRAMS_EVERSERVE": str(everserve),
    }


def read(report: Path) -> dict[str, str]:
    """The outcome of each test of a report of pytest."""
    outcomes: dict[str, str] = {}
    try:
        cases = list(ET.parse(report).getroot().iter("testcase"))
    except ET.ParseError:
        return {}
    for case in cases:
        name = f"{case.get('classname')}.{case.get('name')}".removeprefix(".")
        # A test and its clean-up may both be there: the worse one counts.
        worst = max(outcomes.get(name, "passed"), outcome_of(case), key=badness)
        outcomes[name] = worst
    return outcomes


def badness(outcome: str) -> int:
    return ("passed", "skipped", "failed").index(outcome)


def outcome_of(case: ET.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "passed" if case.find("skipped") is None else "skipped"
