"""Every command that the pages show is run, or read, and says what the page shows."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.docs.blocks import PAGES, ROOT, Block, blocks_of, on_free_ports

LIMIT = 20.0
SESSIONS = [block for page in PAGES for block in blocks_of(page) if block.language == "console"]
_SIGNALS = {"^C": signal.SIGINT}


def steps_of(block: Block) -> list[tuple[str, list[str]]]:
    """Each command of the block, with the lines that it says."""
    steps: list[tuple[str, list[str]]] = []
    for line in block.code.replace("\\\n", "").splitlines():
        if line.startswith("$ "):
            steps.append((line.removeprefix("$ ").partition("  #")[0].strip(), []))
        elif line:
            steps[-1][1].append(line)
    return steps


STEPS = [
    pytest.param(command, said, steps, id=f"{block}:{command[:60]}")
    for block in SESSIONS
    for steps in [steps_of(block)]
    for command, said in steps
    if re.match(r"(\w+=\S+ )*everserve\b", command)
]


def start(command: str, folder: Path) -> "subprocess.Popen[str]":
    """Start an ``everserve`` command, with ports 0; assignments before it go to its environment."""
    words = shlex.split(on_free_ports(command))
    assigned = dict(word.split("=", 1) for word in words[: words.index("everserve")])
    words = words[words.index("everserve") + 1 :]
    return subprocess.Popen(
        [sys.executable, "-m", "everserve", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=os.environ | assigned | {"PYTHONUNBUFFERED": "1", "COLUMNS": "80"},
    )


def plain(line: str) -> str:
    """The line without what differs from run to run: numbers, and the time of day."""
    return re.sub(r"\d+(\.\d+)?", "N", line)


@pytest.mark.parametrize(("command", "said", "steps"), STEPS)
def test_a_command(command: str, said: list[str], steps: Any, folder: Path) -> None:
    if not said:
        command += " --help"
    with start(command, folder) as process:
        assert process.stdout is not None
        try:
            for line in said:
                if line in _SIGNALS:
                    process.send_signal(_SIGNALS[line])
                else:
                    assert plain(process.stdout.readline()).rstrip() == plain(line)
            rest, _ = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    if said:
        assert rest == ""
    else:
        assert rest.startswith("Usage: everserve"), rest
    following = [lines for other, lines in steps if other == "echo $?"]
    assert process.returncode == (int(following[0][0]) if following else 0)


def test_other_commands_are_few() -> None:
    """What is not everserve's is not run: it is known here, and no more than needed to look."""
    known = {"make", "echo", "nc", "kill", "openssl", "pip", "EVERSERVE_NATIVE=yes"}
    words = {command.split()[0] for block in SESSIONS for command, _ in steps_of(block)}
    assert {word for word in words if "=" not in word} - {"everserve"} <= known


def test_make_has_the_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for block in SESSIONS:
        for command, _ in steps_of(block):
            if command.startswith("make "):
                assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE), command
