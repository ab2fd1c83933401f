"""Run one of CPython's own test suites, unmodified, with everserve in the place of `socketserver`.

`test_cpython` starts this file in a fresh interpreter and reads the report that it leaves; by
hand:

    python -P tests/compat/runner.py test_httpservers
    python -P tests/compat/runner.py test_httpservers --with stdlib
    python -P tests/compat/runner.py test_httpservers --mixin FiberMixIn

All modules of the standard library that use `socketserver` (http.server, xmlrpc.server, wsgiref,
logging.config) are imported after the replacement, so they use everserve. The standard module's
code never runs: importing it raises. The exit status is 0 when every test passed, 1 when one failed,
2 when the replacement was not complete.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import inspect
import json
import sys
import time
import types
import unittest
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

SUITES = ("test_xmlrpc", "test_logging", "test_socketserver", "test_httpservers", "test_wsgiref")
"""The longest suites come first."""

STANDING_ON_IT = ("http.server", "xmlrpc.server", "wsgiref.simple_server", "logging.config")


class StandardModuleBarred:
    """A finder that prevents any import of the standard library's `socketserver`."""

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name == "socketserver":
            raise ImportError("the standard library's socketserver is imported, beside everserve")
        return None


class Tally(unittest.TextTestResult):
    """A result that keeps the name of every test, not only the count."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.started: list[str] = []

    def startTest(self, test: unittest.TestCase) -> None:
        self.started.append(test.id())
        super().startTest(test)

    def unsuccessful(self) -> list[str]:
        cases = [case for case, _ in self.failures + self.errors] + self.unexpectedSuccesses
        return sorted({name_of(case) for case in cases})


def name_of(case: unittest.TestCase) -> str:
    """The test's id; for a subtest that of its test, as its own may contain addresses."""
    return getattr(case, "test_case", case).id()


def replacement(server_module: str, mixin: str | None) -> types.ModuleType:
    """The module that is imported as `socketserver` in this run."""
    if server_module == "stdlib":
        module = importlib.import_module("socketserver")
    else:
        sys.meta_path.insert(0, StandardModuleBarred())
        module = importlib.import_module("everserve")
        adopt_name(module)
    if mixin is not None:
        module = with_mixin(module, getattr(importlib.import_module("everserve"), mixin))
    return module


def adopt_name(module: types.ModuleType) -> None:
    """Set `__module__` of the module's public objects to `socketserver`.

    `test_socketserver` distinguishes by `__module__` what the module defines from what it imports,
    and requires the former in `__all__`. A replacement is tested as `socketserver`, so its objects
    have that name. Functions of its own, such as `serve`, keep theirs: a star import must not bring
    them (`wsgiref` has a `make_server` too).
    """
    functions = {name for name, value in vars(module).items() if inspect.isfunction(value)}
    own = functions | {"Connection"}  # `sqlite3` and `multiprocessing` have one too
    for name, value in list(vars(module).items()):
        if name in own:
            continue
        home = getattr(value, "__module__", None)
        if not name.startswith("_") and home and home.split(".")[0] == module.__name__:
            try:
                value.__module__ = "socketserver"
            except TypeError:  # a compiled class: one that inherits it can have the name
                setattr(module, name, type(name, (value,), {"__module__": "socketserver"}))


def with_mixin(module: types.ModuleType, mixin: type) -> types.ModuleType:
    """A copy of the module in which `mixin` is `ThreadingMixIn`, in its ready-made servers too."""
    copy = types.ModuleType("socketserver", module.__doc__)
    vars(copy).update({k: v for k, v in vars(module).items() if not k.startswith("__")})
    copy.__all__ = list(module.__all__)  # type: ignore[attr-defined]
    if "__getattr__" in vars(module):  # it has the deprecated __version__
        copy.__getattr__ = vars(module)["__getattr__"]  # type: ignore[method-assign]
    threading_mixin = module.ThreadingMixIn
    for name, value in vars(module).items():
        if isinstance(value, type) and threading_mixin in value.__bases__:
            bases = tuple(mixin if base is threading_mixin else base for base in value.__bases__)
            setattr(copy, name, type(name, bases, {"__module__": "socketserver"}))
    mixin.__module__ = "socketserver"
    copy.ThreadingMixIn = mixin  # type: ignore[attr-defined]
    return copy


def run(suite: str) -> dict[str, Any]:
    support: Any = importlib.import_module("test.support")
    support.use_resources = None  # None: every resource (network, cpu, walltime, ...) may be used
    support.verbose = 0
    tests = unittest.defaultTestLoader.loadTestsFromName(f"test.{suite}")
    began = time.monotonic()
    tally = unittest.TextTestRunner(resultclass=Tally).run(tests)
    assert isinstance(tally, Tally)
    return {
        "run": tally.testsRun,
        "ids": sorted(tally.started),
        "failed": tally.unsuccessful(),
        "skipped": sorted(f"{name_of(case)}: {reason}" for case, reason in tally.skipped),
        # CPython's own verdict that a test left a thread, a child or a file behind.
        "left_behind": bool(support.environment_altered),
        "seconds": round(time.monotonic() - began, 1),
    }


def strangers(module: types.ModuleType, suite: str) -> list[str]:
    """The names that the standard library's servers took from another module than the replacement."""
    importlib.import_module("http.server")
    found = []
    for user in (sys.modules.get(name) for name in (*STANDING_ON_IT, f"test.{suite}")):
        if user is None:
            continue
        if getattr(user, "socketserver", module) is not module:
            found.append(f"{user.__name__}.socketserver")
        for name in set(module.__all__) & set(vars(user)):
            value = getattr(user, name)
            claimed = getattr(value, "__module__", None) == "socketserver"
            if claimed and value is not getattr(module, name):
                found.append(f"{user.__name__}.{name}")
    if sys.modules["http.server"].socketserver is not module:
        found.append("http.server")
    return found


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--with", dest="server_module", choices=["everserve", "stdlib"])
    parser.add_argument("--mixin", help="the mix-in of everserve that replaces ThreadingMixIn")
    parser.add_argument("--report", type=Path, help="where to write what happened, as JSON")
    parser.add_argument("--limit", type=float, default=240.0, help="seconds until it gives up")
    parser.set_defaults(server_module="everserve")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    given = options(arguments)
    faulthandler.dump_traceback_later(given.limit, exit=True)
    module = replacement(given.server_module, given.mixin)
    sys.modules["socketserver"] = module
    report = run(given.suite)
    report["strangers"] = strangers(module, given.suite)
    report["python"] = sys.version.partition(" ")[0]
    report["engine"] = getattr(module, "engine", None)
    if given.report is not None:
        given.report.write_text(json.dumps(report, indent=1), encoding="utf-8")
    if report["strangers"]:
        print("not taken from", module.__name__, report["strangers"], file=sys.stderr)
        return 2
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
