"""The signal that has an idle server run what a debugger or `sys.remote_exec` has left for it.

They write the name of a script into the memory of a process (PEP 768, Python 3.14). The main thread
finds it between two bytecodes, and a main thread that waits in the kernel executes none. A signal ends
its wait for a moment. The accept loop and the queue of messages listen to it while they wait.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["ATTACH_SIGNAL", "woken_to_attach"]

# Nothing sends it unasked, and a process without a handler ignores it: SIGUSR1 would end such a one.
ATTACH_SIGNAL: signal.Signals | None = getattr(signal, "SIGURG", None)


def _wake(number: int, frame: Any) -> None:
    """Do nothing: that a handler runs has ended the wait."""


@contextmanager
def woken_to_attach() -> Iterator[None]:
    """Have SIGURG wake the main thread during the block.

    Does nothing in other threads, before Python 3.14, and if the program handles the signal itself.
    """
    if not hasattr(sys, "remote_exec") or ATTACH_SIGNAL is None or not _is_free(ATTACH_SIGNAL):
        yield
        return
    signal.signal(ATTACH_SIGNAL, _wake)
    try:
        yield
    finally:
        if _in_main_thread() and signal.getsignal(ATTACH_SIGNAL) is _wake:
            signal.signal(ATTACH_SIGNAL, signal.SIG_DFL)


def _is_free(number: signal.Signals) -> bool:
    return _in_main_thread() and signal.getsignal(number) is signal.SIG_DFL


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
