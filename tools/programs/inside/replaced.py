"""A plug-in for pytest: ends the run where a program got classes of another module than wanted."""

import os
import runpy
import sys

import pytest


def pytest_collection_finish() -> None:
    module = sys.modules.get("socketserver")
    if os.environ["PROGRAMS_STRATEGY"] == "stdlib":
        wanted = module is None or module.__spec__ is not None
    else:
        found = runpy.run_path(os.environ["PROGRAMS_RUNNER"])["strangers"](module, "")
        wanted = not found and hasattr(module, "FiberMixIn")
    if not wanted:
        pytest.exit("not everserve in the place of socketserver", 70)
