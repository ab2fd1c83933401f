"""python3 -m tools COMMAND: the commands behind the targets of the Makefile."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

from tools import archive, interpreters, plan, summary, system
from tools.environments import ROOT, Environment
from tools.programs import command as programs_command
from tools.steps import Crew, Step, interruptible

AT_A_TIME = 2  # steps, each of tests in two processes: some of them wait, and two cores stay busy


def test(arguments: Sequence[str]) -> int:
    given = argparse.ArgumentParser(prog="python3 -m tools test")
    given.add_argument("--system", choices=["yes", "no"], default="yes")
    may_install = given.parse_args(arguments).system == "yes"
    pythons = interpreters.find()
    left_out = system.complete(list(system.missing(pythons, ROOT)), may_install)
    pythons = interpreters.find()
    print("Python", ", ".join(f"{one.full} ({one.path})" for one in pythons), flush=True)
    return check(plan.everything(pythons), left_out)


def lint(_: Sequence[str]) -> int:
    python = default()
    return check([plan.setup(python), *plan.lint(python)])


def cover(_: Sequence[str]) -> int:
    python = default()
    tests = plan.suite(python, f"tests {python.name}", covered=True)
    status = check([plan.setup(python), tests, plan.coverage(python, tests)])
    return subprocess.call([python.python, "-m", "coverage", "html", "-q"], cwd=ROOT) or status


def pytest(arguments: Sequence[str]) -> int:
    """All tests in a few processes, or those that are named in one."""
    chosen = arguments or ["-q", "-n", str(1 + (os.cpu_count() or 1)), "--dist", "loadfile"]
    return replaced_by(ready(default()).python, "-m", "pytest", *chosen)


def format(_: Sequence[str]) -> int:
    ruff = [ready(default()).python, "-m", "ruff"]
    subprocess.run([*ruff, "check", "--fix-only", "--quiet"], cwd=ROOT, check=True)
    return subprocess.call([*ruff, "format"], cwd=ROOT)


def run(arguments: Sequence[str]) -> int:
    """The command line of everserve, in an environment without the tests' packages."""
    return replaced_by(ready(default("cli")).script("everserve"), *arguments)


def bench(arguments: Sequence[str]) -> int:
    python = ready(plan.for_benchmarks(interpreters.find()[0]))
    return replaced_by(python.python, "-m", "benchmarks", *arguments)


def pythons(arguments: Sequence[str]) -> int:
    """Lay Pythons of Debian's archive beside the system; says which cannot be had, and why."""
    for minor in arguments or map(interpreters.dotted, interpreters.BESIDE):
        print(archive.lay(minor), flush=True)
    return 0


def chaos(arguments: Sequence[str]) -> int:
    return replaced_by(ready(default()).python, "-m", "tests.chaos.campaign", *arguments)


def fleet(arguments: Sequence[str]) -> int:
    return replaced_by(ready(default()).python, "-m", "tests.process.fleet", *arguments)


def fuzz(arguments: Sequence[str]) -> int:
    """Give the codecs strange bytes, by atheris where there is one for this Python."""
    python = plan.for_fuzzing(interpreters.find()[0])
    if subprocess.call(python.setup(), cwd=ROOT, stdin=subprocess.DEVNULL) != 0:
        print("atheris cannot be installed for this Python: fuzzing goes on without it", flush=True)
        python = ready(default("cli"))
    return replaced_by(python.python, "-m", "tests.fuzz.campaign", *arguments)


def programs(arguments: Sequence[str]) -> int:
    return programs_command.check(arguments, ready(default("cli")).python)


def clean(_: Sequence[str]) -> int:
    made = [".venvs", ".cache", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache"]
    for name in [*made, "htmlcov", "build", "dist"]:
        shutil.rmtree(ROOT / name, ignore_errors=True)
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "test": test,
    "lint": lint,
    "cover": cover,
    "pytest": pytest,
    "format": format,
    "run": run,
    "pythons": pythons,
    "bench": bench,
    "chaos": chaos,
    "fleet": fleet,
    "fuzz": fuzz,
    "programs": programs,
    "clean": clean,
}


def check(steps: Sequence[Step], left_out: Sequence[str] = ()) -> int:
    """Run the steps, report the outcomes, and return the exit status."""
    crew = Crew(AT_A_TIME)
    crew.run(steps)
    outcomes = [crew.outcomes[step.name] for step in steps]
    summary.print_all(outcomes, left_out)
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def default(extra: str = "check") -> Environment:
    return plan.environment(interpreters.find()[0], extra)


def ready(python: Environment) -> Environment:
    if subprocess.call(python.setup(), cwd=ROOT, stdin=subprocess.DEVNULL) != 0:
        raise SystemExit(1)
    return python


def replaced_by(*command: str) -> int:
    """Replace this process by that command, so that it gets the signals and the terminal."""
    os.chdir(ROOT)
    sys.stdout.flush()
    os.execv(command[0], command)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tools")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    try:
        with interruptible():
            return COMMANDS[given.command](given.arguments)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
