"""The Python interpreters of this machine that everserve supports: one for each minor version.

The interpreter of `make` is first, then come those of pyenv, those of `python3 -m tools pythons`, and
those on the PATH. Among several of one minor version, one with CPython's own test suites is preferred,
because the compat tests need them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PYTHONS = Path(__file__).resolve().parent.parent / ".cache/pythons"
"""Where `archive` lays those that the system lacks."""

OLDEST = (3, 11)
BESIDE = ((3, 14), (3, 15))
"""The versions that `archive` lays beside the system."""

PROBE = """
import importlib.util, json, os, platform, sys, sysconfig
print(json.dumps({
    "path": getattr(sys, "_base_executable", None) or sys.executable,
    "version": list(sys.version_info[:3]),
    "usable": platform.python_implementation() == "CPython"
        and sys.version_info.releaselevel == "final"
        and not sysconfig.get_config_var("Py_GIL_DISABLED"),
    "suites": importlib.util.find_spec("test") is not None
        and importlib.util.find_spec("test.test_socketserver") is not None,
    "venv": importlib.util.find_spec("ensurepip") is not None,
    "headers": os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")),
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python, identified by the path of its executable, and its parts."""

    path: str
    version: tuple[int, int, int]
    suites: bool
    venv: bool
    headers: bool

    @property
    def minor(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"

    @property
    def full(self) -> str:
        return ".".join(map(str, self.version))

    @property
    def packaged(self) -> bool:
        """Whether it is a package of the system, so that apt-get can add to it."""
        return self.path.startswith(("/usr/bin/", "/bin/"))


def find() -> list[Interpreter]:
    """All usable interpreters, the default first, the others by version."""
    default = probe(sys.executable)
    if default is None:
        raise SystemExit(f"{sys.executable} is not a release of CPython {dotted(OLDEST)} or newer")
    chosen = {default.minor: default}
    for candidate in filter(None, map(probe, candidates())):
        rival = chosen.get(candidate.minor)
        if rival is None or (candidate.suites and not rival.suites):
            chosen[candidate.minor] = candidate
    first = chosen.pop(default.minor)
    return [first, *sorted(chosen.values(), key=lambda one: one.version)]


def probe(path: str) -> Interpreter | None:
    """Run the executable to identify it; None if that fails, or if it is not supported."""
    try:
        output = subprocess.run(
            [path, "-I", "-c", PROBE], capture_output=True, stdin=subprocess.DEVNULL, timeout=60
        ).stdout
        facts = json.loads(output)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    version = tuple(facts.pop("version"))
    if not facts.pop("usable") or version < OLDEST:
        return None
    return Interpreter(version=version, **facts)


def candidates() -> Iterator[str]:
    for root in filter(None, (output_of("pyenv", "root"), os.path.expanduser("~/.pyenv"))):
        versions = Path(root, "versions")
        if versions.is_dir():
            homes = sorted(versions.iterdir(), reverse=True)
            yield from (str(home / "bin/python") for home in homes)
    yield from map(str, sorted(PYTHONS.glob("*/usr/bin/python3.*[0-9]")))
    for folder in os.get_exec_path():
        for minor in range(OLDEST[1], BESIDE[-1][1] + 1):
            found = shutil.which(f"python3.{minor}", path=folder)
            if found:
                yield found


def output_of(*command: str) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
        ).stdout.strip()
    except OSError:
        return ""


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
