"""The files of a connection's flow, as ``how-it-works.md`` lists them, are those of the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.blocks import DOCS

import everserve

SOURCE = Path(everserve.__file__).parent
TRACE = Path(__file__).with_name("trace.py")
_ITEM = re.compile(r"^\d+\. \*\*`([^`]+)`\*\*: (.*(?:\n   .*)*)", re.MULTILINE)


def items(strategy: str) -> dict[str, str]:
    """The files that the section about ``strategy`` lists, with the text for each."""
    heading = {"fibers": "## One connection: TCP on fibers", "threads": "## One connection: TLS in"}
    section = (DOCS / "how-it-works.md").read_text().partition(heading[strategy])[2]
    found = _ITEM.findall(re.split(r"^## ", section, flags=re.MULTILINE)[0])
    assert len(dict(found)) == len(found), "a file is listed twice"
    return dict(found)


def traced(strategy: str, folder: Path) -> list[str]:
    """The files that a connection enters, in order. Compiled code cannot be traced."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(TRACE), strategy],
        stdout=subprocess.PIPE,
        text=True,
        timeout=20,
        check=True,
        cwd=folder,
        env=os.environ | {"EVERSERVE_ENGINE": "python"},
    )
    return done.stdout.splitlines()


def test_a_connection_on_fibers_enters_the_files_in_this_order(folder: Path) -> None:
    assert list(items("fibers")) == traced("fibers", folder)


def test_tls_in_threads_enters_these_files_too(folder: Path) -> None:
    known = items("fibers")
    assert list(items("threads")) == [f for f in traced("threads", folder) if f not in known]


@pytest.mark.parametrize("strategy", ["fibers", "threads"])
def test_a_file_has_the_functions_that_are_named(strategy: str) -> None:
    for file, text in items(strategy).items():
        code = (SOURCE / file).read_text()
        for name in re.findall(r"`(\w+)\(\)`", text):
            assert f"def {name}(" in code, (file, name)
