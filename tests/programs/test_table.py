"""The table: a line for each program, the reasons, the total, and the exit status."""

from __future__ import annotations

from tools.programs import table
from tools.programs.catalogue import Difference, Program
from tools.programs.suites import Run
from tools.programs.table import Result

KNOWN = Difference(["test_b"], "it looks at\n  threads")
PROGRAM = Program("one", "1.0", "aa", ["tests"], differences=[KNOWN])
GOOD = Run({"test_a": "passed", "test_b": "passed"})


def result(fibers: Run, program: Program = PROGRAM) -> Result:
    return Result(program, {"stdlib": GOOD, "threads": GOOD, "pool": GOOD, "fibers": fibers})


PLAIN = result(GOOD, Program("two", "2.0", "bb", ["tests"]))
EXPLAINED = result(Run({"test_a": "passed", "test_b": "failed"}))
UNEXPLAINED = result(Run({"test_a": "failed", "test_b": "failed"}))
MISSING = Result(PROGRAM, unavailable="not available: download ended with status 1: ERROR: none")


def test_without_differences() -> None:
    head, row, total = table.lines([PLAIN])
    assert head.split() == ["program", "version", "tests", "differences"]
    assert row.split() == ["two", "2.0", "2", "none"]
    assert total == ("1 programs, 2 tests in each strategy: 0 explained differences, 0 unexplained")
    assert table.status([PLAIN]) == 0


def test_an_explained_difference_has_its_reason() -> None:
    _, row, reason, total = table.lines([EXPLAINED])
    assert row.endswith("1 explained")
    assert reason == "    fibers: it looks at threads"
    assert total.endswith("1 explained differences, 0 unexplained")
    assert table.status([EXPLAINED]) == 0


def test_an_unexplained_difference_names_its_test_and_fails() -> None:
    _, row, _, named, total = table.lines([UNEXPLAINED])
    assert row.endswith("1 explained, 1 NOT")
    assert named == "    fibers: test_a: failed (standard library: passed)"
    assert total.endswith("1 explained differences, 1 unexplained")
    assert table.status([PLAIN, UNEXPLAINED, MISSING]) == 1


def test_only_some_unexplained_differences_are_named() -> None:
    names = [f"test_{number}" for number in range(30)]
    good, bad = (Run(dict.fromkeys(names, outcome)) for outcome in ("passed", "failed"))
    many = Result(PLAIN.program, {"stdlib": good, "threads": good, "pool": good, "fibers": bad})
    lines = list(table.lines([many]))
    assert lines[-2] == f"    ... and {30 - table.SHOWN} more"
    assert len(lines) == 2 + table.SHOWN + 2


def test_a_program_that_is_not_available_is_one_line() -> None:
    _, row, total = table.lines([MISSING])
    assert row.endswith(MISSING.unavailable)
    assert total.endswith("0 unexplained; 1 programs not available")
    assert table.status([PLAIN, MISSING]) == 2


def test_an_explanation_without_a_difference_is_told() -> None:
    _, row, note, _ = table.lines([result(GOOD)])
    assert row.endswith("none")
    assert note == "    not seen this time: test_b"
