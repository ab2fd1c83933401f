"""Builds the compiled engine where it can be built; everything else stands in pyproject.toml.

EVERSERVE_NATIVE says how much it matters: "auto" (the default) warns when compiling fails and
leaves the pure package, "yes" fails, "no" does not try.
"""

import importlib.util
import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

MODULES = (
    "sockets/_tlsrecords",
    *(f"fibers/_{room}" for room in ("loop", "fiber", "scheduler", "hub")),
    *(
        f"fibers/_{room}"
        for room in ("transfer", "sockets", "accepting", "semaphore", "tlssockets")
    ),
    *(f"streams/_{room}" for room in ("half", "reader", "writer", "stream")),
)
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
}
CHOICES = ("auto", "yes", "no")


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


def missing() -> str:
    """What the compiled engine cannot do without, or nothing."""
    if not sys.platform.startswith("linux"):
        return f"it needs Linux's epoll, and this is {sys.platform}"
    if importlib.util.find_spec("Cython") is None:
        return "it needs Cython to build"
    if not headers():
        return "it needs greenlet to build"
    return ""


class BuildNative(build_ext):
    """Compiles all modules or, when they are not insisted upon, none."""

    def run(self) -> None:
        reason = missing()
        if reason:
            self.do_without(reason)
            return
        try:
            super().run()
        except (Exception, SystemExit) as error:
            self.do_without(str(error) or type(error).__name__)

    def do_without(self, reason: str) -> None:
        if NATIVE == "yes":
            raise SystemExit(f"EVERSERVE_NATIVE=yes, but the compiled engine is not: {reason}")
        print(f"warning: everserve goes without its compiled engine: {reason}", file=sys.stderr)
        self.extensions = []

    def get_outputs(self) -> list[str]:
        return [path for path in super().get_outputs() if Path(path).exists()]


def source(name: str) -> str:
    """Its Cython file or, where one source serves both engines, the Python file that it compiles."""
    path = Path("src/everserve", f"{name}.pyx")
    return str(path if path.exists() else path.with_name(f"{path.stem[1:]}.py"))


def extension(name: str) -> Extension:
    module = Extension(
        f"everserve.{name.replace('/', '.')}",
        [source(name)],
        include_dirs=[*headers(), "src/everserve/fibers"],
        extra_compile_args=["-O3", "-fno-strict-aliasing", "-Wno-unused"],
        depends=[
            str(path) for kind in ("pxd", "h") for path in Path("src/everserve").glob(f"*/*.{kind}")
        ],
    )
    module.cython_directives = DIRECTIVES
    module.cython_include_dirs = ["src"]
    module.cython_c_in_temp = True
    return module


setup(
    cmdclass={"build_ext": BuildNative},
    ext_modules=[] if NATIVE == "no" else [extension(name) for name in MODULES],
)
