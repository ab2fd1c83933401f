"""The values of ``executor``: an executor, or a text that says which one a server is to make.

The options and the settings check them; ``opening`` makes what a text asks for.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from concurrent.futures import Executor
from typing import Any, NamedTuple

from everserve.errors import OptionError

__all__ = [
    "WANTED",
    "ExecutorPlan",
    "check_executor",
    "forks_fault",
    "is_executor",
    "is_of_interpreters",
    "is_out_of_process",
]

WANTED = (
    "a concurrent.futures.Executor, or a text such as 'threads:8', 'processes:4', 'interpreters:4'"
    " or 'dask://host:8786'"
)

_COUNTED = re.compile(r"(threads|processes|interpreters):([1-9][0-9]{0,4})")
_INTERPRETERS = "InterpreterPoolExecutor"
_NAMES = {"ProcessPoolExecutor", _INTERPRETERS}
"""By name: to import them takes longer than all of this."""

_CLUSTER = re.compile(r"dask://(\S+:[0-9]+)")


class ExecutorPlan(NamedTuple):
    """What a text asks for: ``kind`` with ``size`` workers; of ``dask``, the ``address``."""

    kind: str
    size: int = 0
    address: str = ""

    @classmethod
    def parse(cls, text: str) -> ExecutorPlan | None:
        """The plan that ``text`` is; ``None`` if it is none."""
        if counted := _COUNTED.fullmatch(text):
            return cls(counted[1], int(counted[2]))
        if cluster := _CLUSTER.fullmatch(text):
            return cls("dask", address=cluster[1])
        return None

    @property
    def is_out_of_process(self) -> bool:
        """True if a message and its reply are pickled on their way."""
        return self.kind != "threads"


def is_executor(value: Any) -> bool:
    """True for a value of the option ``executor`` other than ``None``."""
    if type(value) is str:
        return ExecutorPlan.parse(value) is not None
    return isinstance(value, Executor)


def check_executor(value: Any) -> Any:
    """``value``, as the option has it.

    Raises ``OptionError`` for one that this Python, or this environment, cannot have; ``TypeError`` for
    what is none.
    """
    if value is None:
        return None
    if not is_executor(value):
        raise TypeError
    plan = ExecutorPlan.parse(value) if isinstance(value, str) else None
    if plan is not None and plan.kind == "interpreters" and sys.version_info < (3, 14):
        raise OptionError(f"executor = {value!r}: interpreters need Python 3.14; take processes")
    if plan is not None and plan.kind == "dask" and not _has_dask():
        raise OptionError(f"executor = {value!r}: needs Dask: pip install 'everserve[dask]'")
    return value


def _has_dask() -> bool:
    return importlib.util.find_spec("distributed") is not None


def is_out_of_process(executor: Any) -> bool:
    """True if ``executor`` pickles what it is given: its attribute ``out_of_process``, or its type."""
    if isinstance(executor, str):
        plan = ExecutorPlan.parse(executor)
        return plan is not None and plan.is_out_of_process
    own = getattr(executor, "out_of_process", None)
    if type(own) is bool:
        return own
    kinds = type(executor).__mro__
    return any(
        kind.__module__.startswith("distributed.") for kind in kinds
    ) or not _NAMES.isdisjoint(kind.__name__ for kind in kinds)


def is_of_interpreters(executor: Any) -> bool:
    """True if functions run in interpreters of their own, which can load no module of everserve."""
    if isinstance(executor, str):
        return executor.startswith("interpreters:")
    return any(kind.__name__ == _INTERPRETERS for kind in type(executor).__mro__)


def forks_fault(executor: Any) -> str | None:
    """Why the program's ``executor`` cannot be used beside listeners and connections.

    A worker that is forked has copies of them: a peer would never see the end of its connection.
    """
    context = getattr(executor, "_mp_context", None)
    if context is None or context.get_start_method() != "fork":
        return None
    return (
        "executor: its workers are forked, and would keep the connections of this server open: give"
        " ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn')), or 'processes:4'"
    )
