"""Every ``everserve`` command of the pages is run or parsed, and prints what the page shows."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.docs.blocks import PAGES, ROOT, Block, blocks_of, on_free_ports

pytestmark = pytest.mark.usefixtures("unmeasured")

LIMIT = 20.0
KEYS = {"^C": signal.SIGINT}


@dataclass
class Step:
    """One command: its environment variables, its words, and the output on the page."""

    block: Block
    assigned: dict[str, str]
    words: list[str]
    output: list[str] = field(default_factory=list)
    status: int = 0

    def __str__(self) -> str:
        return f"{self.block}:{' '.join(self.words)}"


def step_of(block: Block, command: str) -> Step:
    words = shlex.split(on_free_ports(command))
    count = next(n for n, word in enumerate(words) if not re.match(r"\w+=", word))
    assigned = dict(word.split("=", 1) for word in words[:count])
    return Step(block, assigned, words[count:])


def steps_of(block: Block) -> list[Step]:
    """The commands of a block; ``echo $?`` belongs to the one before it."""
    steps: list[Step] = []
    lines = iter(block.code.splitlines())
    for line in lines:
        if line == "$ echo $?":
            steps[-1].status = int(next(lines))
        elif line.startswith("$ "):
            steps.append(step_of(block, line.removeprefix("$ ").partition("  #")[0]))
        elif line:
            steps[-1].output.append(line)
    return steps


STEPS = [
    step
    for page in PAGES
    for block in blocks_of(page)
    if block.language == "console"
    for step in steps_of(block)
]


def start(words: list[str], assigned: dict[str, str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=os.environ | assigned | {"PYTHONUNBUFFERED": "1", "COLUMNS": "80"},
    )


def plain(line: str) -> str:
    """The line without numbers, which differ between runs."""
    return re.sub(r"\d+(\.\d+)?", "N", line.rstrip())


EVERSERVE = [step for step in STEPS if step.words[0] == "everserve"]


@pytest.mark.parametrize("step", [step for step in EVERSERVE if step.output], ids=str)
def test_a_command_prints_what_the_page_shows(step: Step, folder: Path) -> None:
    with start(step.words, step.assigned, folder) as process:
        assert process.stdout is not None
        try:
            for line in step.output:
                if line in KEYS:
                    process.send_signal(KEYS[line])
                else:
                    assert plain(process.stdout.readline()) == plain(line)
            rest, _ = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    assert (rest, process.returncode) == ("", step.status)


@pytest.mark.parametrize("step", [step for step in EVERSERVE if not step.output], ids=str)
def test_a_command_is_parsed(step: Step, folder: Path) -> None:
    """``--help`` at the end: the arguments before it are checked without running the app."""
    with start([*step.words, "--help"], step.assigned, folder) as process:
        output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, output
    assert output.startswith(f"Usage: {' '.join(step.words[:2])}"), output


FILES = [block for page in PAGES for block in blocks_of(page) if block.language == "toml"]


@pytest.mark.parametrize("block", FILES, ids=str)
def test_a_file_of_options_would_do(block: Block, folder: Path) -> None:
    """But for the one that shows what a fault looks like."""
    with start(["everserve", "check", "--config", str(block.file)], {}, folder) as process:
        output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == (2 if block.file == "broken.toml" else 0), output


def test_other_commands_are_known() -> None:
    """They are not run."""
    assert {step.words[0] for step in STEPS} <= {"dask", "everserve", "make", "pip"}


def test_make_has_the_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    pages = "".join(page.read_text() for page in [*PAGES, ROOT / "CONTRIBUTING.md"])
    for target in re.findall(r"(?:\$ |`)make ([a-z]+)", pages):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_benchmarks_have_the_options() -> None:
    folder = ROOT / "benchmarks"
    programs = "".join(file.read_text() for file in folder.glob("*.py"))
    programs += (folder / "servers" / "command_line.py").read_text()
    for option in re.findall(r"--[a-z]+", (folder / "README.md").read_text()):
        assert f'"{option}"' in programs, option
