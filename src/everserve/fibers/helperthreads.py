"""Threads that help a server: for deadlines, for the stall watch, for `offload`.

The system may have no thread left when one is needed. Its owner then tries again at its next need.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from everserve.fibers.log import logger

__all__ = ["try_to_start"]

_SILENCE: Final = 1.0  # seconds until the same failure is logged again
_failures: dict[str, float] = {}  # by the name of the thread: when the last one was logged


def try_to_start(
    target: Callable[[], object], *, name: str, daemon: bool = True
) -> threading.Thread | None:
    """Start a thread; None, and a line in the log, if the system has none left.

    The line is logged once a second at most; another one says that the thread could be started.
    """
    thread = threading.Thread(target=target, name=name, daemon=daemon)
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        _note_failure(name, error)
        return None
    if _failures and _failures.pop(name, None) is not None:
        logger.warning("the thread %s could be started now", name)
    return thread


def _note_failure(name: str, error: Exception) -> None:
    now = time.monotonic()
    last = _failures.get(name)
    if last is None or now - last >= _SILENCE:
        _failures[name] = now
        logger.error(
            "the thread %s cannot be started, trying again at the next need: %s", name, error
        )
