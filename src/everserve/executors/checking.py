"""Whether a handler can have its messages handled by an executor; checked when a server is made."""

from __future__ import annotations

import inspect
import pickle
import sys
from typing import Any

from everserve.executors.cluster import is_dask
from everserve.executors.plan import forks_fault, is_of_interpreters, is_out_of_process

__all__ = ["handler_fault_with", "handles_messages"]


def handles_messages(handler: Any) -> bool:
    """True for the class of a message handler."""
    return inspect.isclass(handler) and callable(getattr(handler, "handle_message", None))


def handler_fault_with(executor: Any, handler: Any, *, strategy: Any = None) -> str | None:
    """Why ``executor`` cannot handle the messages of ``handler``, or is not of use to ``strategy``."""
    name = getattr(handler, "__name__", repr(handler))
    if not handles_messages(handler):
        return (
            f"executor runs handle_message, and {name} has none: inherit LineRequestHandler,"
            " or another message handler"
        )
    if strategy is not None and not strategy.takes_executor:
        return f"executor has no meaning for {strategy.name}: it needs fibers, a pool or asyncio"
    if inspect.iscoroutinefunction(handler.handle_message):
        return f"{name}.handle_message is 'async def', and an executor runs plain functions"
    return forks_fault(executor) or (
        _fault_out_of_process(executor, handler, name) if is_out_of_process(executor) else None
    )


def _fault_in_interpreters(function: Any, name: str) -> str | None:
    """A module that imports everserve cannot be loaded there: the greenlets that it needs cannot."""
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    values = () if module is None else tuple(vars(module).values())
    origins = (getattr(v, "__module__", None) or getattr(v, "__name__", None) for v in values)
    if not any(type(text) is str and text.partition(".")[0] == "everserve" for text in origins):
        return None
    return (
        f"{name}.handle_message runs in an interpreter that cannot load everserve: write"
        " handle_message = staticmethod(function), of a module that does not import everserve;"
        " or take processes"
    )


def _fault_out_of_process(executor: Any, handler: Any, name: str) -> str | None:
    where = executor if isinstance(executor, str) else type(executor).__name__
    function = inspect.getattr_static(handler, "handle_message")
    is_bound = hasattr(type(function), "__get__") and not isinstance(function, staticmethod)
    if is_bound:
        return (
            f"{name}.handle_message runs in another process, by executor = {where}, where there is no"
            " handler object: make it a @staticmethod, which gets the message alone"
        )
    if is_of_interpreters(executor):
        return _fault_in_interpreters(handler.handle_message, name)
    if is_dask(executor) or str(where).startswith("dask:"):
        return None  # Dask pickles more: also what is defined in a program's own file
    try:
        pickle.dumps(handler.handle_message)
    except Exception as error:
        return (
            f"{name}.handle_message runs in another process, by executor = {where}, and cannot be"
            f" found there: define it at the top of a module ({error})"
        )
    return None
