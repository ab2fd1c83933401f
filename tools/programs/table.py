"""The table of `make programs`: a line for each program, what is to be said of it, and the total."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tools.programs.catalogue import STANDARD, Program
from tools.programs.comparison import Deviation, deviations, unneeded
from tools.programs.suites import Run

SHOWN = 10  # unexplained differences of one program that are printed


@dataclass(frozen=True)
class Result:
    """One program: its runs, or why there are none."""

    program: Program
    runs: Mapping[str, Run] = field(default_factory=dict)
    unavailable: str = ""

    def deviations(self) -> list[Deviation]:
        return deviations(self.program, self.runs) if self.runs else []

    def unexplained(self) -> list[Deviation]:
        return [one for one in self.deviations() if one.explanation is None]

    def count(self) -> int:
        return len(self.runs[STANDARD].outcomes) if self.runs else 0


def lines(results: Sequence[Result]) -> Iterator[str]:
    """The whole table; the last line is the total."""
    yield f"{'program':<24} {'version':<14} {'tests':>6}  differences"
    for result in results:
        yield row(result)
        yield from (f"    {note}" for note in notes(result))
    yield total(results)


def row(result: Result) -> str:
    program = result.program
    said = result.unavailable or differences(result)
    return f"{program.name:<24} {program.version:<14} {result.count():>6}  {said}"


def differences(result: Result) -> str:
    found, unexplained = len(result.deviations()), len(result.unexplained())
    if not found:
        return "none"
    return f"{found - unexplained} explained" + (f", {unexplained} NOT" if unexplained else "")


def notes(result: Result) -> Iterator[str]:
    found = result.deviations()
    for difference in result.program.differences:
        strategies = sorted({one.strategy for one in found if one.explanation is difference})
        if strategies:
            yield f"{', '.join(strategies)}: {' '.join(difference.reason.split())}"
    unexplained = result.unexplained()
    yield from map(str, unexplained[:SHOWN])
    if len(unexplained) > SHOWN:
        yield f"... and {len(unexplained) - SHOWN} more"
    if result.runs:
        for difference in unneeded(result.program, found):
            yield f"not seen this time: {', '.join(difference.tests)}"


def total(results: Sequence[Result]) -> str:
    """One line: how many programs and tests, and the differences."""
    ran = [result for result in results if result.runs]
    found = sum(len(result.deviations()) for result in ran)
    unexplained = sum(len(result.unexplained()) for result in ran)
    text = f"{len(ran)} programs, {sum(result.count() for result in ran)} tests in each strategy: "
    text += f"{found - unexplained} explained differences, {unexplained} unexplained"
    left_out = len(results) - len(ran)
    return text + (f"; {left_out} programs not available" if left_out else "")


def status(results: Sequence[Result]) -> int:
    """0 if no difference is unexplained, 1 if one is, 2 if a program was not available."""
    if any(result.unexplained() for result in results):
        return 1
    return 2 if any(result.unavailable for result in results) else 0
