"""The checks, as data: the steps, their order, and the commands of each."""

from __future__ import annotations

from collections.abc import Sequence

from tools.environments import ROOT, Environment
from tools.interpreters import Interpreter
from tools.steps import RECORDS, Step

TYPED = ("-p", "tools", "-p", "tests.compat", "-m", "tests.conftest")


def environment(python: Interpreter, extra: str = "test") -> Environment:
    return Environment(python.minor, python.path, extra)


def without_compiler(python: Interpreter) -> Environment:
    return Environment(f"{python.minor}-pure", python.path, native="no")


def for_benchmarks(python: Interpreter) -> Environment:
    return Environment(
        f"{python.minor}-bench", python.path, "cli", requirements="benchmarks/requirements.txt"
    )


def setup(python: Environment) -> Step:
    return Step(f"environment {python.name}", [python.setup()])


def lint(python: Environment) -> list[Step]:
    """The checks of the source code itself."""
    needs = f"environment {python.name}"
    run = [python.python, "-m"]
    return [
        Step("format", [[*run, "ruff", "format", "--check"]], needs=needs),
        Step("lint", [[*run, "ruff", "check"]], needs=needs),
        Step("types", [[*run, "mypy"], [*run, "mypy", *TYPED]], needs=needs),
        Step(
            "imports",
            [[python.script("lint-imports"), "--no-cache"]],
            variables={"PYTHONPATH": str(ROOT / "src")},
            needs=needs,
        ),
    ]


HEAVY = ("tests/hostile", "tests/proxy")
"""Tests that run on the newest Python only: they take half as long as all others together."""

NO_ENGINE = (
    *HEAVY,
    "tests/benchmarks",
    "tests/compat",
    "tests/docs",
    "tests/programs",
    "tests/typing",
    "tests/wire",
)
"""Tests that do not depend on the engine, and need no run in the environment without a compiler."""


def suite(
    python: Environment, name: str, covered: bool = False, leaving: Sequence[str] = ()
) -> Step:
    """Run the tests, ``leaving`` out some folders."""
    label = name.replace(" ", "-")
    xml = RECORDS / f"{label}.xml"
    cache = ROOT / ".cache/pytest" / python.name
    pytest = ["-m", "pytest", "-q", f"--junitxml={xml}", "-o", "junit_family=xunit1"]
    pytest += ["-o", f"cache_dir={cache}", *(f"--ignore={folder}" for folder in leaving)]
    measured = [
        [python.python, "-m", "coverage", "erase"],
        [python.python, "-m", "coverage", "run", *pytest],
    ]
    plain = [[python.python, "-X", "dev", *pytest]]
    needs = f"environment {python.name}"
    return Step(name, measured if covered else plain, needs=needs, xml=xml)


def coverage(python: Environment, tests: Step) -> Step:
    """The coverage of that run; pyproject.toml sets the minimum."""
    run = [python.python, "-m", "coverage"]
    return Step("coverage", [[*run, "combine", "--quiet"], [*run, "report"]], needs=tests.name)


def everything(pythons: Sequence[Interpreter]) -> list[Step]:
    """All steps, the longest first, each after the one that it needs.

    Several run at a time: a long step must not be last, where it would run alone.
    """
    first, *others = [environment(python) for python in pythons]
    pure = without_compiler(pythons[0])
    last = [
        step
        for one in reversed(others)
        for step in (
            setup(one),
            suite(one, f"tests {one.name}", leaving=() if one is others[-1] else HEAVY),
        )
    ]
    return [
        setup(first),
        suite(first, f"tests {first.name}", leaving=HEAVY if others else ()),
        *last,
        setup(pure),
        suite(pure, f"tests {first.name} without compiler", leaving=NO_ENGINE),
        *lint(first),
    ]
