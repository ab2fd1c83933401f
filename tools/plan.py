"""The checks, as data: the steps, their order, and the commands of each."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tools.environments import ROOT, Environment
from tools.interpreters import IN_PART, Interpreter
from tools.steps import RECORDS, Step

TYPED = ("-p", "tools", "-p", "tests.compat", "-m", "tests.conftest")


def environment(python: Interpreter, extra: str = "test") -> Environment:
    return Environment(python.minor, python.path, extra)


def quickly_built(python: Interpreter) -> Environment:
    """For tests alone: as users have it, but compiled in half the time."""
    return Environment(python.minor, python.path, "test", cflags="-O1")


def without_compiler(python: Interpreter) -> Environment:
    return Environment(f"{python.minor}-pure", python.path, native="no")


def for_benchmarks(python: Interpreter) -> Environment:
    return Environment(
        f"{python.minor}-bench", python.path, "cli", requirements="benchmarks/requirements.txt"
    )


def for_fuzzing(python: Interpreter) -> Environment:
    return Environment(
        f"{python.minor}-fuzz", python.path, "cli", requirements="tests/fuzz/requirements.txt"
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


HEAVY = (
    "tests/benchmarks",
    "tests/chaos",
    "tests/cli",
    "tests/defects",
    "tests/docs",
    "tests/examples",
    "tests/fuzz",
    "tests/hostile",
    "tests/process",
    "tests/programs",
    "tests/proxy",
    "tests/typing",
    "tests/wire",
)
"""Tests that run on the newest Python only: they start many processes, or are of no one Python."""

NO_ENGINE = (*HEAVY, "tests/compat", "tests/fuzz", "tests/wire")
"""Tests that do not depend on the engine, and need no run in the environment without a compiler."""


WORKERS = 2
"""The processes that share the tests of one Python: many tests wait, and the others fill that time."""

PART = (
    "tests/compat",
    "tests/contract",
    "tests/executors/test_interpreters.py",
    "tests/fibers",
    "tests/streams",
    "tests/server",
    "tests/sockets/test_attaching.py",
    "tests/test_exports.py",
)
"""The tests that run on the Pythons of `IN_PART`: those in which one Python differs from another."""


def suite(
    python: Environment,
    name: str,
    covered: bool = False,
    leaving: Sequence[str] = (),
    only: Sequence[str] = (),
) -> Step:
    """Run the tests, ``leaving`` out some folders, or ``only`` some of them."""
    label = name.replace(" ", "-")
    xml = RECORDS / f"{label}.xml"
    cache = ROOT / ".cache/pytest" / python.name
    pytest = ["-m", "pytest", "-q", f"--junitxml={xml}", "-o", "junit_family=xunit1"]
    pytest += ["-o", f"cache_dir={cache}", *only, *(f"--ignore={folder}" for folder in leaving)]
    measured = [
        [python.python, "-m", "coverage", "erase"],
        [python.python, "-m", "coverage", "run", *pytest],
    ]
    workers = f"{WORKERS}*popen//python={shlex.quote(python.python)} -X dev"
    plain = [[python.python, "-X", "dev", *pytest, "--dist", "loadfile", "--tx", workers]]
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
    first, *others = pythons
    whole = [one for one in others if one.version[:2] not in IN_PART]
    newest = whole[-1] if whole else first
    pure = without_compiler(first)
    last = [
        step
        for one in [*reversed(whole), *(one for one in others if one not in whole)]
        for step in (
            setup(quickly_built(one)),
            matching_suite(one, newest, in_part=one not in whole),
        )
    ]
    return [
        setup(environment(first)),
        matching_suite(first, newest),
        *last,
        setup(pure),
        suite(pure, f"tests {first.minor} without compiler", leaving=NO_ENGINE),
        *lint(environment(first)),
    ]


def matching_suite(python: Interpreter, newest: Interpreter, *, in_part: bool = False) -> Step:
    """The tests on that Python: those of `HEAVY` on the ``newest`` only, and some ``in_part``."""
    leaving = () if python is newest or in_part else HEAVY
    only = PART if in_part else ()
    return suite(environment(python), f"tests {python.minor}", leaving=leaving, only=only)
