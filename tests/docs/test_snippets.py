"""Every Python block of the pages runs, and prints what the page shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.blocks import PAGES, Block, blocks_of, fits, on_free_ports

pytestmark = pytest.mark.usefixtures("unmeasured")

SNIPPETS = [block for page in PAGES for block in blocks_of(page) if block.language == "python"]
NEEDS = {"certificates", "the block above"}
PLAY = Path(__file__).with_name("play.py")


@pytest.mark.parametrize("block", SNIPPETS, ids=str)
def test_a_snippet_runs(block: Block, folder: Path, tmp_path: Path) -> None:
    assert set(block.needs) <= NEEDS
    file = tmp_path / "snippet.py"
    file.write_text(on_free_ports(block.code))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(PLAY), str(file), *(block.talk or ())],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=20,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout
    if block.output is not None:
        assert fits(block.output, done.stdout), done.stdout
    else:
        assert "Traceback" not in done.stdout, done.stdout


@pytest.mark.parametrize("block", SNIPPETS, ids=str)
def test_a_snippet_that_serves_answers(block: Block) -> None:
    """A snippet with definitions only proves nothing: each snippet serves or prints."""
    assert block.talk or block.output or "assert " in block.code
