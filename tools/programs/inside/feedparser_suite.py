"""A plug-in for pytest: feedparser's `tests/runtests.py` makes its tests, and starts their server."""

from __future__ import annotations

import types
import unittest
from typing import Any

_prepared: set[str] = set()


def pytest_pycollect_makeitem(collector: Any, name: str, obj: object) -> None:
    """Before the first class is collected, let the module add its tests, and run none of them."""
    module = collector.obj
    if not isinstance(module, types.ModuleType) or module.__name__ in _prepared:
        return
    _prepared.add(module.__name__)
    run = unittest.TextTestRunner.run
    unittest.TextTestRunner.run = lambda *_: unittest.TestResult()  # type: ignore[method-assign, assignment]
    try:
        module.runtests()
    except SystemExit:
        pass
    finally:
        unittest.TextTestRunner.run = run  # type: ignore[method-assign]
