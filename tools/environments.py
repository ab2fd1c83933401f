"""Virtual environments with everserve installed in them, one folder each under `.venvs`.

The package is installed as users install it, not as a link to `src`. So each interpreter has its own
native modules, and the environment without a compiler has none. The package is built from a copy of
the sources, so several environments can be set up at the same time. A stamp in each environment
records its ingredients, so that nothing is rebuilt without need.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import interpreters

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venvs"

SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "src")
NOT_SOURCES = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info", "*.c")


@dataclass(frozen=True)
class Environment:
    """One virtual environment: its name, its interpreter, and how the package is built for it."""

    name: str
    interpreter: str
    extra: str = "test"
    native: str = ""
    requirements: str = ""
    cflags: str = ""

    @property
    def python(self) -> str:
        return str(HOME / self.name / "bin/python")

    def script(self, name: str) -> str:
        return str(HOME / self.name / "bin" / name)

    def setup(self) -> list[str]:
        """The command that makes it or updates it."""
        command = [sys.executable, "-m", "tools.environments", self.name, self.interpreter]
        command += ["--extra", self.extra]
        command += ["--native", self.native] if self.native else []
        command += [f"--cflags={self.cflags}"] if self.cflags else []
        return command + (["--requirements", self.requirements] if self.requirements else [])

    def make(self) -> None:
        folder = HOME / self.name
        stamp = folder / "made-from.json"
        wanted = self.ingredients()
        before = json.loads(stamp.read_text()) if stamp.exists() else {}
        if before.get("interpreter") != wanted["interpreter"]:
            before = {}
            self.create(folder)
        extras = before["extras"] if before.get("needs") == wanted["needs"] else []
        if self.extra in extras and before["package"] == wanted["package"]:
            return
        stamp.unlink(missing_ok=True)  # an interrupted setup is repeated
        if self.extra in extras:
            with sources() as copy:
                self.pip("--no-build-isolation", "--no-deps", "--force-reinstall", copy)
        else:
            self.install_all()
        stamp.write_text(json.dumps({**wanted, "extras": sorted({self.extra, *extras})}))

    def create(self, folder: Path) -> None:
        """Make the environment, with a pip.

        Debian's Pythons take pip from the system. For one that lies beside the system that pip may be
        too old, or missing: then another interpreter gets it a new one.
        """
        make = [self.interpreter, "-m", "venv", "--clear"]
        try:
            call(*make, str(folder))
            return
        except subprocess.CalledProcessError:
            call(*make, "--without-pip", str(folder))
        with tempfile.TemporaryDirectory() as work:
            wheel = download_pip(work)
            call(self.python, f"{wheel}/pip", "install", "--quiet", wheel)

    def install_all(self) -> None:
        self.pip(*build_needs())
        with sources() as copy:
            self.pip("--no-build-isolation", f"{copy}[{self.extra}]")
        if self.requirements:
            self.pip("-r", self.requirements)

    def ingredients(self) -> dict[str, Any]:
        """The inputs of the environment and of the package in it: it is stale if one has changed."""
        described = subprocess.run(
            [self.interpreter, "-VV"], capture_output=True, text=True, check=True
        ).stdout
        listed = (ROOT / self.requirements).read_text("utf-8") if self.requirements else ""
        needs = json.dumps([project(), listed])
        variables = [os.environ.get(name, "") for name in ("CC", "CFLAGS", "EVERSERVE_NATIVE")]
        package = hashlib.sha256(json.dumps([needs, self.native, self.cflags, variables]).encode())
        for path in source_files():
            package.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
        return {
            "interpreter": [self.interpreter, described],
            "needs": hashlib.sha256(needs.encode()).hexdigest(),
            "package": package.hexdigest(),
        }

    def pip(self, *arguments: str) -> None:
        # Debug information does not change the code, and takes a third of the compiler's time.
        extra = {"CFLAGS": f"-g0 {self.cflags} {os.environ.get('CFLAGS', '')}".strip()}
        extra["EVERSERVE_C"] = str(translated())
        if self.native:
            extra["EVERSERVE_NATIVE"] = self.native
        if self.native == "no":
            extra["CC"] = "false"  # a build that calls a compiler fails
        # No bytecode: most of those files are never imported, and an import makes that of the others.
        install = ["-m", "pip", "install", "--quiet", "--no-compile"]
        call(self.python, *install, *arguments, **extra)


def translated() -> Path:
    """The folder of the C files that Cython makes of the present sources, for all interpreters."""
    made_from = hashlib.sha256(json.dumps(build_needs()).encode())
    for path in source_files():
        made_from.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    folder = ROOT / ".cache/c" / made_from.hexdigest()
    for other in folder.parent.glob("*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return folder


class sources(tempfile.TemporaryDirectory[str]):
    """A copy of the package's sources, which exists during a `with` block."""

    def __enter__(self) -> str:
        folder = super().__enter__()
        for path in filter(Path.exists, (ROOT / name for name in SOURCES)):
            target = Path(folder, path.name)
            if path.is_dir():
                shutil.copytree(path, target, ignore=NOT_SOURCES)
            else:
                shutil.copy2(path, target)
        return folder


def download_pip(work: str) -> str:
    """Have the first interpreter whose own pip works download a newer one. Returns its path."""
    for python in interpreters.candidates():
        helper = Path(work, "helper")
        try:
            call(python, "-m", "venv", "--clear", str(helper))
            pip = [str(helper / "bin/python"), "-m", "pip"]
            call(*pip, "download", "--quiet", "--no-deps", "--dest", work, "pip")
        except (OSError, subprocess.CalledProcessError):
            continue
        return str(next(Path(work).glob("pip-*.whl")))
    raise SystemExit("no Python of this machine has a pip that works: install python3-venv")


def project() -> dict[str, Any]:
    """The contents of pyproject.toml without the settings of tools."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return {"build-system": content["build-system"], "project": content["project"]}


def build_needs() -> list[str]:
    return list(project()["build-system"]["requires"])


def source_files() -> list[Path]:
    """The files that determine the behaviour of the installed package."""
    built = {".so", ".c", ".pyc"}
    found = [ROOT / "setup.py", *(ROOT / "src/everserve").rglob("*")]
    return sorted(path for path in found if path.is_file() and path.suffix not in built)


def call(*command: str, **variables: str) -> None:
    print("+", *command, flush=True)
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    environ = {**os.environ, **quiet, **variables}
    subprocess.run(command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name")
    parser.add_argument("interpreter")
    parser.add_argument("--extra", default="test")
    parser.add_argument("--native", default="")
    parser.add_argument("--requirements", default="")
    parser.add_argument("--cflags", default="")
    try:
        Environment(**vars(parser.parse_args())).make()
    except subprocess.CalledProcessError as error:
        print(f"this command ended with status {error.returncode}:", *error.cmd, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
