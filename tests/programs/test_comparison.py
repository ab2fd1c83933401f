"""What counts as a difference from the standard library, and what does not."""

from __future__ import annotations

from tools.programs.catalogue import Difference, Program
from tools.programs.comparison import WHOLE, deviations, unneeded
from tools.programs.suites import Run

WHY = Difference(["test_b"], "known", ["pool", "fibers"])
PROGRAM = Program("one", "1.0", "aa", ["tests"], differences=[WHY])
GOOD = Run({"test_a": "passed", "test_b": "passed"})


def found(standard: Run = GOOD, here: Run = GOOD) -> list[tuple[str, str, str, bool]]:
    runs = {"stdlib": standard, "threads": GOOD, "pool": standard, "fibers": here}
    runs["threads"] = standard
    return [
        (one.test, one.standard, one.here, one.explanation is not None)
        for one in deviations(PROGRAM, runs)
    ]


def test_equal_runs_have_no_difference() -> None:
    assert found() == []


def test_a_test_that_fails_here_alone_is_one() -> None:
    here = Run({"test_a": "failed", "test_b": "failed"})
    assert found(here=here) == [
        ("test_a", "passed", "failed", False),
        ("test_b", "passed", "failed", True),
    ]


def test_a_test_that_is_skipped_or_missing_here_is_one() -> None:
    here = Run({"test_b": "passed"})
    assert found(here=here) == [("test_a", "passed", "not run", False)]
    here = Run({"test_a": "skipped", "test_b": "passed"})
    assert found(here=here) == [("test_a", "passed", "skipped", False)]


def test_a_test_that_fails_on_the_standard_library_is_none() -> None:
    standard = Run({"test_a": "failed", "test_b": "passed"})
    assert found(standard, GOOD) == []
    assert found(standard, standard) == []


def test_a_run_that_did_not_end_is_one_beside_its_tests() -> None:
    here = Run({"test_a": "passed"}, "took more than 9 s")
    assert found(here=here) == [
        (WHOLE, "2 passed", "took more than 9 s", False),
        ("test_b", "passed", "not run", True),
    ]


def test_a_standard_run_without_a_passing_test_is_one() -> None:
    """Otherwise a suite that cannot run at all would agree everywhere."""
    nothing = Run({"test_a": "skipped"})
    assert found(nothing, nothing) == [(WHOLE, "whole", "0 passed", False)]


def test_a_listed_difference_that_was_not_seen_is_told() -> None:
    here = Run({"test_a": "passed", "test_b": "failed"})
    runs = {"stdlib": GOOD, "threads": GOOD, "pool": GOOD, "fibers": here}
    assert unneeded(PROGRAM, deviations(PROGRAM, runs)) == []
    assert unneeded(PROGRAM, deviations(PROGRAM, {**runs, "fibers": GOOD})) == [WHY]
