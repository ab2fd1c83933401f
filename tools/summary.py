"""The summary of a run: skipped tests, CPython's suites, the steps, and the total."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.steps import Outcome, verdict


@dataclass
class Tally:
    """Counts of tests, the reasons of skipped ones, and the results of CPython's suites."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    suites: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def tally_of(outcome: Outcome) -> Tally:
    """Count a step: as its tests if it ran pytest, else as one check."""
    path = outcome.step.xml
    if path is None or not path.exists():
        return Tally(passed=int(outcome.passed), failed=int(not outcome.passed))
    tally = read(path)
    if not outcome.passed and not tally.failed:
        tally.failed = 1
    return tally


def read(path: Path) -> Tally:
    tally = Tally()
    for case in ET.parse(path).getroot().iter("testcase"):
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            tally.failed += 1
        elif skipped is None:
            tally.passed += 1
        else:
            tally.skipped += 1
            reason = skipped.get("message", "")
            tally.reasons[reason] = tally.reasons.get(reason, 0) + 1
        noted = {one.get("name", ""): one.get("value", "") for one in case.iter("property")}
        if "suite" in noted:
            tally.suites[noted["suite"]] = noted["everserve"], noted["stdlib"]
    return tally


def print_all(outcomes: Sequence[Outcome], left_out: Iterable[str]) -> None:
    """Print the summary; the last line is only the total."""
    tallies = {outcome.step.name: tally_of(outcome) for outcome in outcomes}
    total = Tally()
    for tally in tallies.values():
        total.add(tally)
    print_left_out(tallies, left_out)
    print_suites(tallies)
    headline("steps: seconds, and seconds of a processor")
    for outcome in outcomes:
        counts = f"  {tallies[outcome.step.name]}" if outcome.step.xml else ""
        times = f"{outcome.seconds:7.1f} s {outcome.processor:7.1f} s"
        print(f"{outcome.step.name:<34}{times}  {verdict(outcome)}{counts}")
    print(f"{'all together':<44}{sum(outcome.processor for outcome in outcomes):7.1f} s")
    headline("total: the tests of every interpreter, and each other step as one check")
    print(total, flush=True)


def print_left_out(tallies: dict[str, Tally], left_out: Iterable[str]) -> None:
    lines = list(left_out)
    for name, tally in tallies.items():
        lines += [f"{name}: {count} skipped: {why}" for why, count in tally.reasons.items()]
    if lines:
        headline("left out")
        print(*lines, sep="\n")


def print_suites(tallies: dict[str, Tally]) -> None:
    """A table, interpreter by suite; the standard library's own counts where they differ."""
    rows = {name: tally.suites for name, tally in tallies.items() if tally.suites}
    if not rows:
        return
    headline("CPython's own suites on everserve: run/failed/skipped")
    suites = list(next(iter(rows.values())))
    print(" " * 34, *(f"{suite:<17}" for suite in suites))
    for name, cells in rows.items():
        print(f"{name:<34}", *(f"{cell(cells.get(suite)):<17}" for suite in suites))


def cell(counts: tuple[str, str] | None) -> str:
    if counts is None:
        return "not finished"
    everserve, standard = counts
    return everserve if everserve == standard else f"{everserve} (not {standard})"


def headline(text: str) -> None:
    print(f"\n--- {text}")
