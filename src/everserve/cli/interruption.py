"""Ctrl-C while the command line is still being imported, or stops being imported.

The package imports this first: ``everserve.cli.main`` catches what comes later.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType

__all__ = ["STATUS", "end_quietly", "is_command"]

STATUS = 130
"""The exit status of a process that Ctrl-C ended before it served: 128 and the signal's number."""


def is_command(orig: list[str], argv: list[str]) -> bool:
    """True in the process of ``everserve ...`` and ``python -m everserve ...``."""
    if not argv:
        return False
    if argv[0] == "-m":  # the module is being located: runpy sets the path later
        return orig[len(orig) - len(argv)] == "everserve"
    return os.path.basename(argv[0]).removesuffix(".exe") == "everserve"


def end_quietly(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """An ``excepthook``: Ctrl-C ends the process without a traceback."""
    if issubclass(kind, KeyboardInterrupt):
        os._exit(STATUS)
    sys.__excepthook__(kind, error, traceback)
