"""Whether a module is loaded for another reason than to serve: it must not serve by itself then.

The command line loads one in this thread, and serves it afterwards: it would never go on. A process of
an executor loads the program, for its ``handle_message``.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from everserve.errors import HandlerError

__all__ = ["loading", "refuse_while_loading"]

_here = threading.local()


@contextmanager
def loading() -> Iterator[None]:
    """Around the load of a module in this thread. Its other threads may serve."""
    _here.loading = True
    try:
        yield
    finally:
        _here.loading = False


def refuse_while_loading(call: str) -> None:
    """Raise ``HandlerError`` where ``call`` would serve while this thread loads a module."""
    if getattr(_here, "loading", False):
        raise HandlerError(
            f"it calls {call} while it is loaded, and everserve run serves by itself:"
            " put the call under if __name__ == '__main__':"
        )
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and getattr(processes.current_process(), "_inheriting", False):
        raise HandlerError(
            f"a process of an executor loads this program, which calls {call}:"
            " put the call under if __name__ == '__main__':"
        )
