"""The system packages that the tests need in addition to Python; installs missing ones with `apt-get`.

Nothing here makes the checks fail. A package that cannot be installed is reported with the reason, and
the tests that need it are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.interpreters import Interpreter

INSTALL = ["apt-get", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"]
PATIENCE = 300  # seconds for one call of apt-get


@dataclass(frozen=True)
class Package:
    """A Debian package, and the tests that are skipped without it."""

    name: str
    serves: str


def missing(pythons: Sequence[Interpreter], root: Path) -> Iterator[Package]:
    """The packages that the tests need and that are not installed."""
    if shutil.which("nc") is None:
        yield Package("netcat-openbsd", "tests that talk to a server through nc")
    if shutil.which("haproxy") is None:
        yield Package("haproxy", "tests with a real proxy in front")
    if shutil.which("dig") is None:
        yield Package("bind9-dnsutils", "the test that asks the DNS example with dig")
    if shutil.which("logger") is None:
        yield Package("bsdutils", "the tests that write to the syslog example with logger")
    if shutil.which("systemd-socket-activate") is None:
        yield Package("systemd", "tests with systemd's own tools")
    for python in filter(lambda one: one.packaged, pythons):
        minor, path = python.minor, python.path
        if not python.venv:
            yield Package(f"python{minor}-venv", f"everything on {path}")
        if not python.suites:
            yield Package(f"libpython{minor}-testsuite", f"CPython's suites on {path}")
        if not python.headers and (root / "setup.py").exists():
            yield Package(f"python{minor}-dev", f"the native engine on {path}")


def complete(packages: Sequence[Package], may_install: bool) -> list[str]:
    """Install the packages if possible. Returns a line for each set of tests that is left out."""
    names = " ".join(package.name for package in packages)
    why = reason_against(names, may_install)
    if why or not packages:
        return [left_out(package, why) for package in packages]
    print(f"apt-get install {names}: tests need them; SYSTEM=no leaves them out", flush=True)
    reasons = {package: install(package.name) for package in packages}
    return [left_out(package, reason) for package, reason in reasons.items() if reason]


def reason_against(names: str, may_install: bool) -> str:
    """Why nothing is installed; empty if it can be."""
    if not may_install:
        return "SYSTEM=no"
    if shutil.which("apt-get") is None:
        return "there is no apt-get here"
    if os.geteuid() != 0:
        return f"only root may install; as root: apt-get install {names}"
    return ""


def install(name: str) -> str:
    """Install one package, on the second try with fresh lists. Returns the reason of a failure."""
    return apt([*INSTALL, name]) and (apt(["apt-get", "update"]) or apt([*INSTALL, name]))


def apt(command: list[str]) -> str:
    """Run apt-get. Returns the end of its output if it failed, else nothing."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return f"apt-get did not end within {PATIENCE} s"
    if done.returncode == 0:
        return ""
    return (done.stdout.strip().splitlines() or [f"apt-get ended with {done.returncode}"])[-1]


def left_out(package: Package, reason: str) -> str:
    return f"{package.serves}: {package.name} is not installed ({reason})"
