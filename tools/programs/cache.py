"""What the programs are run from: the sdist, its files, and an environment, in a folder for each.

A stamp in the folder records what it was made from, so nothing is made again without need.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from tools.environments import ROOT
from tools.programs.catalogue import Program
from tools.programs.processes import Processes

HOME = ROOT / ".cache/programs"
CONSTRAINTS = Path(__file__).with_name("constraints.txt")
RUNNERS = ("pytest", "pytest-timeout")
PATIENCE = 600.0  # seconds for one call of pip


class NotAvailable(Exception):
    """The program cannot be had here; the text is the last line of pip."""


class Folder:
    """The folder of one program."""

    def __init__(self, program: Program, processes: Processes, home: Path = HOME) -> None:
        self.program = program
        self.processes = processes
        self.path = home / f"{program.name}-{program.version}"
        self.sdist = self.path / "sdist"
        self.source = self.path / "source"
        self.python = self.path / "venv/bin/python"

    def make(self) -> None:
        """Fetch and install the program, unless that has been done. Raises NotAvailable."""
        stamp = self.path / "made-from.json"
        wanted = self.ingredients()
        if stamp.exists() and stamp.read_text("utf-8") == wanted:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        self.call("environment", sys.executable, "-m", "venv", str(self.path / "venv"))
        self.fetch()
        self.unpack()
        self.install()
        stamp.write_text(wanted, "utf-8")

    def ingredients(self) -> str:
        return json.dumps([self.program.sha256, self.needs(), CONSTRAINTS.read_text("utf-8")])

    def fetch(self) -> None:
        listed = self.path / "requirement.txt"
        listed.write_text(self.program.requirement + "\n", "utf-8")
        from_source = ["--no-deps", "--no-binary", self.program.name, "--require-hashes"]
        self.pip("download", "download", *from_source, "-d", str(self.sdist), "-r", str(listed))

    def unpack(self) -> None:
        """Unpack the one folder of the sdist as `source`."""
        with tarfile.open(self.archive()) as archive:
            archive.extractall(self.path / "unpacked", filter="data")
        (unpacked,) = (self.path / "unpacked").iterdir()
        unpacked.rename(self.source)
        # Else pytest would take the settings of everserve for a program without its own.
        (self.path / "pytest.ini").write_text("[pytest]\n", "utf-8")

    def install(self) -> None:
        constraints = ["-c", str(CONSTRAINTS)]
        self.pip("installation", "install", *constraints, str(self.archive()), *self.needs())

    def needs(self) -> list[str]:
        return [*RUNNERS, *self.program.needs]

    def archive(self) -> Path:
        (archive,) = self.sdist.iterdir()
        return archive

    def pip(self, what: str, *arguments: str) -> None:
        self.call(what, str(self.python), "-m", "pip", *arguments)

    def call(self, what: str, *command: str) -> None:
        """Run a command. NotAvailable has the line of its output that says why it failed."""
        quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
        log = self.path / f"{what}.txt"
        failed = self.processes.run(command, {**quiet, **self.program.variables}, log, PATIENCE)
        if failed:
            said = reason_in(log.read_text("utf-8", "replace"))
            raise NotAvailable(f"{what} {failed}: {said}")


def reason_in(output: str) -> str:
    """The line that says why pip failed: its last error, or else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["no output"])[-1]


def link_everserve(python: str, home: Path = HOME) -> Path:
    """A folder with everserve and greenlet of that environment, and nothing else of it.

    The programs' interpreters append it to their path. So everserve is built once, and the packages
    of its environment do not mix with those of the programs.
    """
    script = "import everserve, greenlet\nfor one in (everserve, greenlet): print(one.__path__[0])"
    found = subprocess.run([python, "-P", "-c", script], capture_output=True, text=True, check=True)
    folder = home / "everserve"
    folder.mkdir(parents=True, exist_ok=True)
    for path in map(Path, found.stdout.split()):
        link = folder / path.name
        link.unlink(missing_ok=True)
        os.symlink(path, link, target_is_directory=True)
    return folder
