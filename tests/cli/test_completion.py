"""Shell completion, as the page has it: the script of a shell, and what is completed."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from tests.cli.test_commands import everserve
from tests.docs.blocks import table_of

LINES = {row[0]: row[2].strip("`") for row in table_of("command-line.md", "| shell | file |")}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell(shell: str) -> None:
    assert f"_EVERSERVE_COMPLETE={shell}_source everserve" in LINES[shell]
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    done = everserve(_EVERSERVE_COMPLETE=f"{shell}_source")
    assert done.returncode == 0
    assert "_EVERSERVE_COMPLETE" in done.stdout
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True, timeout=50)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("everserve ", {"plain,run", "plain,check", "plain,unit", "plain,doctor"}),
        ("everserve run --concurrency ", {"plain,fibers", "plain,threads"}),
        ("everserve run --max-conn", {"plain,--max-connections"}),
        ("everserve run --tls-cert ser", {"file,ser"}),
        ("everserve run --chdir ser", {"dir,ser"}),
        ("everserve run exam", {"file,exam"}),
    ],
)
def test_what_is_completed(words: str, wanted: set[str]) -> None:
    done = everserve(
        _EVERSERVE_COMPLETE="bash_complete",
        COMP_WORDS=words,
        COMP_CWORD=str(words.count(" ")),
    )
    assert wanted <= set(done.stdout.splitlines()), done.stdout + done.stderr
