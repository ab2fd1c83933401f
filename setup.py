"""Builds the compiled engine where it can be built; everything else is in pyproject.toml.

EVERSERVE_NATIVE sets the effect of a failure: "auto" (the default) warns and builds the pure package,
"yes" fails. "no" does not try to compile. EVERSERVE_C is a folder for the C files, which several
interpreters share: Cython, a third of the work, then runs for the first only. The sources must be the
same for all.
"""

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

try:
    import fcntl

    from Cython.Build import cythonize
except ImportError:  # `missing` says it
    cythonize = None

MODULES = (
    *(f"sockets/_{module}" for module in ("outbox", "datagrams", "runs")),
    *(f"wire/_{module}" for module in ("pieces", "lengths", "lines", "codec")),
    *(f"messages/_{module}" for module in ("outbox", "replies", "inbox", "conversation")),
    "sockets/tls/_records",
    *(f"fibers/_{module}" for module in ("loop", "fiber", "scheduler", "hub", "carrying")),
    *(
        f"fibers/_{module}"
        for module in ("transfer", "sockets", "accepting", "semaphore", "tlssockets")
    ),
    *(f"streams/_{module}" for module in ("half", "reader", "writer", "stream", "ready", "aio")),
    *(f"lifecycle/_{module}" for module in ("connection", "connections", "progress")),
    *(f"lifecycle/_{module}" for module in ("making", "emitter", "sessionstate", "sessions")),
    "admission/_limits",
    "concurrency/_hubparking",
    *(f"server/_{module}" for module in ("flow", "datagramaccount", "datagramflow")),
)
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
}
CHOICES = ("auto", "yes", "no")
CFLAGS = os.environ.get("CFLAGS", "").split()
"""Those of the person who builds: they come last, so that they win over ours."""


def choose() -> str:
    native = os.environ.get("EVERSERVE_NATIVE", "").strip().lower() or "auto"
    if native not in CHOICES:
        raise SystemExit(f"EVERSERVE_NATIVE={native!r}: choose one of {', '.join(CHOICES)}")
    return native


NATIVE = choose()


def headers() -> list[str]:
    """Where `greenlet/greenlet.h` is: beside the greenlet package. Empty without greenlet."""
    found = importlib.util.find_spec("greenlet")
    return [] if found is None or found.origin is None else [str(Path(found.origin).parents[1])]


def relocated_headers() -> list[str]:
    """Where Debian's `Python.h` finds the rest of itself, for a Python that lies beside the system.

    It includes <x86_64-linux-gnu/python3.14/pyconfig.h>, which the compiler searches in /usr/include.
    """
    folder = Path(sysconfig.get_path("include")).parent
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    return [str(folder)] if multiarch and (folder / multiarch).is_dir() else []


def missing() -> str:
    """The missing requirement of the compiled engine, or an empty string."""
    if not sys.platform.startswith("linux"):
        return f"it needs Linux's epoll, and this is {sys.platform}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "it needs the GIL, and this Python is a free-threaded one"
    if cythonize is None:
        return "it needs Cython to build"
    if not headers():
        return "it needs greenlet to build"
    return ""


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """One build at a time writes into that folder; the others wait for it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


class BuildNative(build_ext):
    """Compiles all modules. If that fails, and EVERSERVE_NATIVE is not "yes", it compiles none."""

    def run(self) -> None:
        reason = missing()
        if reason:
            self.do_without(reason)
            return
        try:
            self.translate()
            super().run()
        except (Exception, SystemExit) as error:
            self.do_without(str(error) or type(error).__name__)

    def translate(self) -> None:
        """Have C instead of Cython, made here or, with ``EVERSERVE_C``, by the first of some builds."""
        with locked(Path(os.environ.get("EVERSERVE_C") or self.build_temp)) as folder:
            complete = folder / "complete"
            if not (complete.exists() and "EVERSERVE_C" in os.environ):
                # Cython does not see that a module depends on the .pxd of another Python source.
                changed = complete.exists() and complete.stat().st_mtime < newest_declaration()
                self.cythonize(folder, anew=bool(self.force) or changed)
                complete.touch()
        for module in self.extensions:
            module.sources = [str(folder / Path(path).with_suffix(".c")) for path in module.sources]

    def cythonize(self, folder: Path, *, anew: bool) -> None:
        cythonize(
            [Extension(module.name, list(module.sources)) for module in self.extensions],
            include_path=[*headers(), "src", "src/everserve/fibers"],
            compiler_directives=DIRECTIVES,
            build_dir=str(folder),
            force=anew,
        )

    def do_without(self, reason: str) -> None:
        if NATIVE == "yes":
            raise SystemExit(f"EVERSERVE_NATIVE=yes, but the engine was not compiled: {reason}")
        print(f"warning: everserve has no compiled engine: {reason}", file=sys.stderr)
        self.extensions = []

    def get_outputs(self) -> list[str]:
        return [path for path in super().get_outputs() if Path(path).exists()]


def source(name: str) -> str:
    """Its Cython file, or the Python file if one source serves both engines."""
    path = Path("src/everserve", f"{name}.pyx")
    return str(path if path.exists() else path.with_name(f"{path.stem[1:]}.py"))


def declarations() -> list[Path]:
    return [path for kind in ("pxd", "h") for path in Path("src/everserve").rglob(f"*.{kind}")]


def newest_declaration() -> float:
    return max(path.stat().st_mtime for path in declarations())


def extension(name: str) -> Extension:
    return Extension(
        f"everserve.{name.replace('/', '.')}",
        [source(name)],
        include_dirs=[*headers(), "src/everserve/fibers", *relocated_headers()],
        extra_compile_args=["-O2", "-fno-strict-aliasing", "-Wno-unused", *CFLAGS],
        depends=[str(path) for path in declarations()],
    )


setup(
    cmdclass={"build_ext": BuildNative},
    ext_modules=[] if NATIVE == "no" else [extension(name) for name in MODULES],
)
