"""The README is correct: its snippets run, its commands and names exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import everserve
from everserve.options import OPTIONS

pytestmark = pytest.mark.usefixtures("unmeasured")

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ").partition("  #")[0].strip()
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]


def run(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
        cwd=ROOT,
    )


def test_the_first_snippet_serves() -> None:
    code = SNIPPETS[0].replace('"tcp://127.0.0.1:9999"', '"tcp://127.0.0.1:0"')
    assert code != SNIPPETS[0]
    probe = """
import socket, threading, everserve
class Probe(everserve.ThreadPoolTCPServer): pass
from everserve.server.conductor import Conductor
original = Conductor.announce
def announce(self, hooks):
    original(self, hooks)
    threading.Thread(target=talk, args=(hooks,)).start()
def talk(server):
    with socket.create_connection(server.server_address) as client:
        client.sendall(b"hello\\n")
        print(client.makefile().readline())
    server.stop()
Conductor.announce = announce
"""
    assert run(probe + code).stdout.strip() == "HELLO"


@pytest.mark.parametrize("snippet", SNIPPETS[1:])
def test_the_other_snippets_run(snippet: str) -> None:
    run(snippet)


def test_the_life_cycle_snippet_prints_what_it_shows() -> None:
    output = run(SNIPPETS[2]).stdout
    assert "ServerState.SERVING" in output
    assert "0 finished, 0 cut in" in output


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("everserve run")])
def test_the_commands_are_read(command: str) -> None:
    """``--help`` at the end: the arguments before it are checked without running the app."""
    words = command.split()[1:]
    done = subprocess.run(
        [sys.executable, "-m", "everserve", *words, "--help"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr


def test_make_has_the_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in COMMANDS:
        if command.startswith("make "):
            assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE), command


def test_the_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link


def test_the_names_exist() -> None:
    for name in re.findall(r"`(\w+(?:Server|MixIn|Handler))`", README):
        assert hasattr(everserve, name), name
    options = re.findall(
        r"`(\w+)`", README.partition("same name\n  everywhere:")[2].partition("...")[0]
    )
    assert options
    assert set(options) <= set(OPTIONS)
