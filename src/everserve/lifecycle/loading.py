"""Whether this thread loads a module for the command line, which serves it afterwards.

A module that serves by itself while it is loaded would never let the command go on.
"""

from __future__ import annotations

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
