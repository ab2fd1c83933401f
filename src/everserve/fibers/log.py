"""The logger `everserve`: a handler or a subscriber that fails costs its line, and nothing else.

It stands below all that logs, the event loop included. A full disk must not end the thread that serves.
"""

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

from everserve.fibers.exits import FiberExit, began_in_signal_handler

__all__ = ["Logger", "concerns_program", "logger"]


def concerns_program(error: BaseException) -> bool:
    """Whether `error` came from outside into what only observes: a signal, or the end of the fiber."""
    return isinstance(error, FiberExit | KeyboardInterrupt) or began_in_signal_handler(error)


class Logger(logging.LoggerAdapter[logging.Logger]):
    """Logs, and never raises what a handler, a filter or a formatter raises.

    That goes to stderr, as `logging.Handler.handleError` does it, unless `logging.raiseExceptions`
    is false.
    """

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Leave the message and its `extra` as they are."""
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log; the line names the caller of the logger."""
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        try:
            super().log(level, msg, *args, **kwargs)
        except BaseException as error:
            if concerns_program(error):
                raise
            _print(error)


def _print(error: BaseException) -> None:
    if logging.raiseExceptions and sys.stderr is not None:
        try:
            sys.stderr.write(
                "".join(("--- Logging error ---\n", *traceback.format_exception(error)))
            )
        except Exception:
            pass  # stderr is broken as well: no one is left to be notified


logger = Logger(logging.getLogger("everserve"))
