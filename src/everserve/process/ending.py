"""The end of a process in which threads are left that no one can stop.

``run`` reports them here. Python cannot end a thread from outside: at the end of a process it waits for
those that are no daemons, and takes the interpreter away from under the others, which crashes where one
of them stands in a fiber.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

__all__ = ["STATUS", "leave_behind"]

STATUS = 1
"""The exit status of a process in which something was left."""

_STACKS = 8
"""How many different stacks are logged; most threads that are left stand at the same place."""

logger = logging.getLogger("everserve")

_left: list[threading.Thread] = []


def leave_behind(threads: Iterable[threading.Thread]) -> None:
    """Log where these threads are, and have the process end all the same, with status 1.

    It ends as it always does, but for these threads: what is registered with ``atexit`` is called. A
    thread that has ended by then counts no more.
    """
    left = [thread for thread in threads if thread.is_alive()]
    if not left:
        return
    _log_stacks(left)
    if not _left:
        with suppress(RuntimeError):  # the interpreter ends already
            _register(_end_process)
    _left.extend(left)


# What is registered so is called before the interpreter waits for threads, other than with atexit.
_register: Callable[[Callable[[], object]], Any] = getattr(
    threading, "_register_atexit", atexit.register
)


def _log_stacks(threads: list[threading.Thread]) -> None:
    frames = sys._current_frames()
    names: dict[str, list[str]] = {}
    for thread in threads:
        frame = frames.get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        names.setdefault(stack, []).append(thread.name)
    for stack, at_it in list(names.items())[:_STACKS]:
        logger.error("does not end: %s (threads: %d)\n%s", at_it[0], len(at_it), stack)


def _end_process() -> None:
    """End the process without the end of the interpreter, if one of the threads still runs."""
    if not any(thread.is_alive() for thread in _left):
        return
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(STATUS)
