"""A plug-in for pytest: runs the wanted tests, and only with the wanted module as `socketserver`."""

from __future__ import annotations

import fnmatch
import os
import runpy
import sys

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    patterns = os.environ["PROGRAMS_LEFT_OUT"].split()
    items[:] = [
        item
        for item in items
        if not any(fnmatch.fnmatchcase(name_of(item), pattern) for pattern in patterns)
    ]


def name_of(item: pytest.Item) -> str:
    """The name of the test in the report."""
    path, *names = item.nodeid.split("::")
    return ".".join([path.removesuffix(".py").replace("/", "."), *names])


def pytest_collection_finish() -> None:
    module = sys.modules.get("socketserver")
    if os.environ["PROGRAMS_STRATEGY"] == "stdlib":
        wanted = module is None or module.__spec__ is not None
    else:
        found = runpy.run_path(os.environ["PROGRAMS_RUNNER"])["strangers"](module, "")
        wanted = not found and hasattr(module, "FiberMixIn")
    if not wanted:
        pytest.exit("not everserve in the place of socketserver", 70)
