"""A plug-in for pytest that prepares Django as its own `tests/runtests.py` does, and cleans up."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import pytest

APPLICATIONS = ["servers", "builtin_server"]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: Any) -> None:
    sys.path.insert(0, os.getcwd())
    os.environ["DJANGO_SETTINGS_MODULE"] = "test_sqlite"
    runtests: Any = importlib.import_module("runtests")
    runner: Any = importlib.import_module("django.test.runner")
    runtests.setup_run_tests(0, None, None, APPLICATIONS)
    session.runner = runner.DiscoverRunner(verbosity=0, interactive=False)
    session.runner.setup_test_environment()
    session.databases = session.runner.setup_databases()


def pytest_sessionfinish(session: Any) -> None:
    session.runner.teardown_databases(session.databases)
    session.runner.teardown_test_environment()
