"""Compare the runs of one program with its run on the standard library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tools.programs.catalogue import STANDARD, STRATEGIES, Difference, Program
from tools.programs.suites import Run

WHOLE = "(whole run)"
"""Stands for the test where a run did not end as it should."""


@dataclass(frozen=True)
class Deviation:
    """One test that did not end as on the standard library."""

    strategy: str
    test: str
    standard: str
    here: str
    explanation: Difference | None = None

    def __str__(self) -> str:
        return f"{self.strategy}: {self.test}: {self.here} (standard library: {self.standard})"


def deviations(program: Program, runs: Mapping[str, Run]) -> list[Deviation]:
    """All tests that end worse on everserve, and runs that did not end as they should.

    A test that fails on the standard library and passes here is no fault of everserve.
    """
    standard = runs[STANDARD]
    # Without a test that passes there is nothing to agree with.
    whole = not standard.trouble and standard.count("passed")
    found = [] if whole else [Deviation(STANDARD, WHOLE, "whole", reason(standard))]
    for strategy in STRATEGIES:
        found += compared(program, strategy, standard, runs[strategy])
    return found


def compared(program: Program, strategy: str, standard: Run, here: Run) -> list[Deviation]:
    pairs = [
        (test, standard.outcomes.get(test, "not run"), here.outcomes.get(test, "not run"))
        for test in sorted(set(standard.outcomes) | set(here.outcomes))
    ]
    worse = [pair for pair in pairs if pair[1] not in (pair[2], "failed")]
    if here.trouble:
        worse.insert(0, (WHOLE, reason(standard), reason(here)))
    return [
        Deviation(strategy, test, before, after, program.explanation(strategy, test))
        for test, before, after in worse
    ]


def reason(run: Run) -> str:
    return run.trouble or f"{run.count('passed')} passed"


def unneeded(program: Program, found: list[Deviation]) -> list[Difference]:
    """The listed differences that were not seen."""
    seen = [one.explanation for one in found]
    return [one for one in program.differences if one not in seen]
