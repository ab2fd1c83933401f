"""What the command line writes: messages on stdout, errors and the log on stderr.

Neither stops a server: not a reader that is slow, not one that is gone, not a full disk.
"""

from __future__ import annotations

import os
import sys

from everserve.escaping import escaped
from everserve.observe.lines import LineWriter

__all__ = ["LOG", "complain", "finish", "open_standard_descriptors", "say"]

_WAIT = 1.0
"""Seconds that the end of the process waits for a slow reader."""

_OUT = LineWriter(1)
LOG = LineWriter(2)
"""Where the log goes."""


def open_standard_descriptors() -> None:
    """Open those of 0, 1 and 2 that are closed: no socket may take their place, and get messages."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest one


def say(line: str) -> None:
    """Write a message to stdout. Complain once where that fails."""
    was_broken = _OUT.error is not None
    _OUT.write(f"everserve: {line}\n")
    if _OUT.error is not None and not was_broken:
        complain(f"stdout cannot be written ({_OUT.error.strerror}): going on without messages")


def complain(line: str) -> None:
    """Write one line to stderr."""
    LOG.write(f"everserve: {escaped(line)}\n")


def finish() -> None:
    """Give slow readers a moment, and let the interpreter end without an error of stdout."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:  # what a handler has printed; else the exit status would be 120
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _OUT.finish(_WAIT)
    LOG.finish(_WAIT)
