"""How a fiber is made to end, and what must not end a fiber alone.

It stands below both engines, which raise the first and ask for the second.
"""

import inspect
import signal
import threading
from functools import partial
from itertools import pairwise
from types import CodeType, FrameType
from typing import Any

__all__ = ["FiberExit", "began_in_signal_handler"]


class FiberExit(BaseException):
    """Raised in a fiber that is killed; ends it without a report, after its `finally` blocks."""


def began_in_signal_handler(error: BaseException) -> bool:
    """Whether a signal handler of the program has raised `error`, in what it interrupted.

    The program means its main thread then, and not the request that happened to run there. CPython
    calls a handler with the number of the signal and the frame that it interrupts, so the traceback
    has a frame with these two as arguments. The interrupted frame need not be in the traceback:
    compiled code, which was running, has none. In a fiber that is compiled down to its start there is
    none at all, and the second argument is None; only the function that is set as the handler of the
    signal counts then, as anyone may pass a number and None. A handler that is no Python function, such
    as `sys.exit` itself, has no frame either, and is not recognised. A ConnectionError is taken for the
    peer's, without a look: there may be one for each connection.
    """
    if isinstance(error, ConnectionError) or threading.get_ident() != threading.main_thread().ident:
        return False  # only the main thread runs signal handlers
    trace = error.__traceback__
    while trace is not None:
        if _is_handler(trace.tb_frame):
            return True
        trace = trace.tb_next
    return False


def _is_handler(frame: FrameType) -> bool:
    for number, interrupted in pairwise(_arguments(frame)):
        if isinstance(number, int) and number in signal.valid_signals():
            if isinstance(interrupted, FrameType):
                return True
            is_lowest = interrupted is None and frame.f_back is None
            if is_lowest and _code_of(signal.getsignal(number)) is frame.f_code:
                return True
    return False


def _code_of(handler: Any) -> CodeType | None:
    """The code that runs when `handler` is called, if that is Python."""
    while isinstance(handler, partial):
        handler = handler.func
    if not hasattr(handler, "__code__"):  # a method has that of its function
        handler = getattr(handler, "__call__", None)  # noqa: B004
    code = getattr(handler, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _arguments(frame: FrameType) -> list[Any]:
    """The positional arguments of a call, those of `*arguments` included."""
    code = frame.f_code
    if code.co_argcount < 2 and not code.co_flags & inspect.CO_VARARGS:
        return []  # a look at the locals of who has caught the error would keep it there, in a cycle
    values = frame.f_locals
    found = [values.get(name) for name in code.co_varnames[: code.co_argcount]]
    if code.co_flags & inspect.CO_VARARGS:
        found.extend(values.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount], ()))
    return found
