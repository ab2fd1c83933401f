"""Signals as items of a queue, while servers run.

The handlers do nothing but put the number into the queue; who waits on it decides.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["RELOAD_SIGNAL", "STOP_SIGNALS", "receiving"]

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What asks a server process to end: Ctrl-C, and what service managers send."""


RELOAD_SIGNAL: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""What asks a server to read its files anew, where the system has it."""


@contextmanager
def receiving(
    numbers: Iterable[signal.Signals], put: Callable[[signal.Signals], object]
) -> Iterator[None]:
    """Call ``put(signal)`` for each of these signals during the block; restore the handlers after it.

    Signals belong to the main thread: in any other the block just runs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        put(signal.Signals(number))

    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
