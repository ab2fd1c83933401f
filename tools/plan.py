"""The checks, as data: the steps, their order, and the commands of each."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tools.environments import ROOT, Environment
from tools.interpreters import BESIDE, Interpreter
from tools.steps import RECORDS, Step

TYPED = ("-p", "tools", "-p", "tests.compat", "-m", "tests.conftest")


def environment(python: Interpreter, extra: str = "check") -> Environment:
    """That of the default Python: compiled as users have it, with what checks the source code."""
    return Environment(python.minor, python.path, extra)


def quickly_built(python: Interpreter) -> Environment:
    """For tests alone: as users have it, but compiled without optimisation, which takes less time."""
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
    "tests/programs",
    "tests/proxy",
    "tests/wire/test_proxy.py",
    "tests/wire/test_proxyv2.py",
    "tests/wire/test_tlvs.py",
)
"""Tests that run on the newest Python only: they start many processes, or are of no one Python.

That is the newest of the machine itself: what lies beside it may lack what programs need.
"""

CHECKERS = ("tests/typing",)
"""Tests of what type checkers say: on the first Python only, which has them."""

NO_ENGINE = (*HEAVY, *CHECKERS, "tests/compat", "tests/process")
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

COLLISIONS = ("tests/collisions",)
"""With `PART` on the Pythons of the machine itself: what programs may name differs a little."""


def suite(
    python: Environment,
    name: str,
    covered: bool = False,
    leaving: Sequence[str] = (),
    only: Sequence[str] = (),
) -> Step:
    """Run the tests, ``leaving`` out some folders, or ``only`` some of them.

    Python's development mode checks the memory of the compiled engine, among others. Without that
    engine it has little to find, and takes a fifth of the time.
    """
    label = name.replace(" ", "-")
    xml = RECORDS / f"{label}.xml"
    cache = ROOT / ".cache/pytest" / python.name
    pytest = ["-m", "pytest", "-q", f"--junitxml={xml}", "-o", "junit_family=xunit1"]
    pytest += ["-o", f"cache_dir={cache}", *only, *(f"--ignore={folder}" for folder in leaving)]
    measured = [
        [python.python, "-m", "coverage", "erase"],
        [python.python, "-m", "coverage", "run", *pytest],
    ]
    run = [python.python] if python.native == "no" else [python.python, "-X", "dev"]
    workers = f"{WORKERS}*popen//python={shlex.join(run)}"
    plain = [[*run, *pytest, "--dist", "loadfile", "--tx", workers]]
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
    of_machine = [one for one in others if one.version[:2] not in BESIDE]
    newest = of_machine[-1] if of_machine else first
    others.sort(key=lambda one: one is not newest)
    pure = without_compiler(first)
    return [
        setup(environment(first)),
        suite(environment(first), f"tests {first.minor}", leaving=() if newest is first else HEAVY),
        *(
            step
            for one in others
            for step in (setup(quickly_built(one)), tests_of(one, newest, of_machine))
        ),
        setup(pure),
        suite(pure, f"tests {first.minor} without compiler", leaving=NO_ENGINE),
        *lint(environment(first)),
    ]


def tests_of(python: Interpreter, newest: Interpreter, of_machine: Sequence[Interpreter]) -> Step:
    """The tests of a Python that is not the first."""
    name = f"tests {python.minor}"
    if python is newest:
        return suite(quickly_built(python), name, leaving=CHECKERS)
    only = (*PART, *COLLISIONS) if python in of_machine else PART
    return suite(quickly_built(python), name, only=only)
