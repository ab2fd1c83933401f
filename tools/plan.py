"""The checks, as data: the steps, their order, and the commands of each."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tools.environments import ROOT, Environment
from tools.interpreters import BESIDE, Interpreter
from tools.steps import RECORDS, Step

TYPED = ("-p", "tools", "-p", "tests.compat", "-m", "tests.conftest")


def environment(python: Interpreter, extra: str = "test") -> Environment:
    return Environment(python.minor, python.path, extra)


def quickly_built(python: Interpreter) -> Environment:
    """For tests alone: as users have it, but compiled in a quarter of the time."""
    return Environment(python.minor, python.path, "test", cflags="-O0")


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
"""Tests that run on the newest Python only: they start many processes, or are of no one Python.

That is the newest of the machine itself: what lies beside it may lack what programs need.
"""

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
"""The tests in which one Python differs from another: on all but the first and that of `HEAVY`."""


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
    newest = next((one for one in reversed(others) if one.version[:2] not in BESIDE), first)
    pure = without_compiler(first)
    others.sort(key=lambda one: one is not newest)
    return [
        setup(environment(first)),
        suite(environment(first), f"tests {first.minor}", leaving=() if newest is first else HEAVY),
        *(
            step
            for one in others
            for step in (
                setup(quickly_built(one)),
                suite(environment(one), f"tests {one.minor}", only=() if one is newest else PART),
            )
        ),
        setup(pure),
        suite(pure, f"tests {first.minor} without compiler", leaving=NO_ENGINE),
        *lint(environment(first)),
    ]
