"""Signals as items of a queue, while servers run.

The handlers only put the number into the queue; the reader of the queue acts on it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["RELOAD_SIGNAL", "STOP_SIGNALS", "known", "receiving"]

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""The signals that stop a server process: Ctrl-C's, and that of service managers."""


def known(*names: str) -> tuple[signal.Signals, ...]:
    """Those of these signals that the system has."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


RELOAD_SIGNAL: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""The signal that makes a server reload its files, where the system has it."""


@contextmanager
def receiving(
    numbers: Iterable[signal.Signals], put: Callable[[signal.Signals], object]
) -> Iterator[None]:
    """Call ``put(signal)`` for each of these signals during the block; restore the handlers after it.

    Only the main thread receives signals: in any other thread this does nothing.
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
