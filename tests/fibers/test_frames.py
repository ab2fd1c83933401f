"""Small frames: in use where the layout of the interpreter is known, and off where it is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib import resources

import pytest
from tests.engines import loaded

from everserve.errors import OptionError
from everserve.fibers.frames import allows_small_frames

KNOWN = ((3, 11), (3, 12), (3, 13), (3, 14), (3, 15))

DEEP = """
import everserve.fibers._scheduler as scheduler
from everserve.fibers._hub import Hub

def dig(depth, innermost):
    return innermost() if depth == 0 else dig(depth - 1, innermost)

hub = Hub()
fibers = [hub.spawn(dig, depth, hub.yield_turn) for depth in range(40) for _ in range(5)]
while hub.fibers:
    hub.turn(0)
hub.close()
print(scheduler.small_frames)
"""


def run_fibers(choice: str) -> subprocess.CompletedProcess[str]:
    """Run fibers of every depth in a separate process, which prints whether they had small frames."""
    return subprocess.run(
        [sys.executable, "-c", DEEP],
        env={
            **os.environ,
            "EVERSERVE_SMALL_FRAMES": choice,
            "PYTHONPATH": ":".join(sys.path),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def preprocessed(*definitions: str) -> str:
    """`_frames.h` after the preprocessor, for a version of CPython."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    header = resources.files("everserve.fibers").joinpath("_frames.h").read_text("utf-8")
    return subprocess.run(
        [compiler, "-E", "-P", *(f"-D{definition}" for definition in definitions), "-"],
        input=header,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.parametrize(
    "definitions",
    [
        ("PY_VERSION_HEX=0x030A0DF0",),
        ("PY_VERSION_HEX=0x031000F0",),
        ("PY_VERSION_HEX=0x030D00F0", "Py_GIL_DISABLED=1"),
    ],
)
def test_an_unknown_layout_is_not_accessed(definitions: tuple[str, ...]) -> None:
    code = preprocessed(*definitions)
    assert "everserve_chunk_in" in code
    for private in ("PyThreadState", "datastack", "_PyStackChunk", "ArenaAllocator"):
        assert private not in code


@pytest.mark.parametrize("minor", [minor for _major, minor in KNOWN])
def test_a_known_layout_is_used(minor: int) -> None:
    assert "state->datastack_chunk = chunk" in preprocessed(f"PY_VERSION_HEX=0x03{minor:02X}00F0")


def test_the_build_agrees_with_the_table() -> None:
    loaded("native")
    with_gil = not sysconfig.get_config_var("Py_GIL_DISABLED")
    done = run_fibers("auto")
    assert done.stdout.strip() == str(with_gil and sys.version_info[:2] in KNOWN), done.stderr


@pytest.mark.parametrize("choice", ["no", " NO "])
def test_the_switch_turns_them_off(choice: str) -> None:
    loaded("native")
    done = run_fibers(choice)
    assert done.stdout.strip() == "False", done.stderr


def test_a_wrong_choice_names_the_right_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERSERVE_SMALL_FRAMES", "perhaps")
    with pytest.raises(OptionError, match="'perhaps': choose one of auto, no"):
        allows_small_frames()


def test_a_wrong_choice_does_not_select_the_other_engine() -> None:
    loaded("native")
    done = run_fibers("perhaps")
    assert "OptionError" in done.stderr.splitlines()[-1]
    assert done.returncode


@pytest.mark.parametrize(
    ("choice", "allowed"), [(None, True), ("", True), ("Auto", True), ("no", False)]
)
def test_they_are_allowed_unless_turned_off(
    monkeypatch: pytest.MonkeyPatch, choice: str | None, allowed: bool
) -> None:
    monkeypatch.delenv("EVERSERVE_SMALL_FRAMES", raising=False)
    if choice is not None:
        monkeypatch.setenv("EVERSERVE_SMALL_FRAMES", choice)
    assert allows_small_frames() is allowed
