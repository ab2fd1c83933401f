"""The facts of a measurement: the machine, and the versions of an interpreter and its peers."""

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import PACKAGES

_ASK = """
import importlib.metadata, json, platform, ssl, sys
def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
try:
    import everserve
    engine = str(getattr(everserve, "engine", "unknown"))
except Exception:
    engine = None
print(json.dumps({
    "python": platform.python_version(),
    "implementation": platform.python_implementation(),
    "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
    "engine": engine,
    "openssl": ssl.OPENSSL_VERSION,
    "packages": {name: version(name) for name in %r},
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python that runs servers. ``engine`` is that of its everserve, None if it is not installed.

    ``openssl`` is the version that its ``ssl`` uses.
    """

    path: str
    python: str
    implementation: str
    gil: bool
    engine: str | None
    openssl: str
    packages: dict[str, str | None]

    @property
    def short(self) -> str:
        """The name of its results: 3.13, 3.13t, pypy3.11."""
        version = ".".join(self.python.split(".")[:2])
        prefix = "" if self.implementation == "CPython" else self.implementation.lower()
        return f"{prefix}{version}{'' if self.gil else 't'}"


def interpreter(path: str) -> Interpreter:
    """Run the interpreter at this path to identify it. Raises ValueError if that fails."""
    command = [path, "-c", _ASK % (PACKAGES,)]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return Interpreter(path=path, **json.loads(answer.stdout))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ValueError(f"{path} cannot be run as an interpreter: {error}") from error


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _compiler() -> str:
    command = [os.environ.get("CC", "cc"), "--version"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(
            "\n"
        )[0]
    except (OSError, subprocess.SubprocessError):
        return "none"


def machine() -> dict[str, str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()),
        "compiler": _compiler(),
    }
