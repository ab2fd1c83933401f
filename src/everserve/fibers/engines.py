"""Which engine runs: the compiled one ("native"), or its reference in Python ("python").

EVERSERVE_ENGINE chooses once, when this module is first imported: "auto" (the default) takes the
compiled one where it was built, "native" and "python" insist on theirs. Everything above imports the
parts of the engine from here.
"""

import atexit
import importlib
import logging
import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Literal

from everserve.errors import EngineUnavailableError
from everserve.fibers.finalization import halt_hubs

__all__ = [
    "DatagramRun",
    "DatagramSocket",
    "Fiber",
    "FiberSocket",
    "FiberTLSSocket",
    "Hub",
    "Records",
    "Semaphore",
    "accept_many",
    "current",
    "engine",
    "explain_slow_engine",
    "here",
    "part",
    "turning_hub",
]

logger = logging.getLogger("everserve")

_PREFIXES = {"native": "_", "python": ""}  # of module names
_CHOICES = ("auto", *_PREFIXES)


def load(name: str) -> Any:
    """Load the engine `name`, "native" or "python"; raises ImportError if it was not built."""

    def load_part(module: str, room: str = "fibers") -> Any:
        return importlib.import_module(f"everserve.{room}.{_PREFIXES[name]}{module}")

    fiber, hub, sockets = map(load_part, ("fiber", "hub", "sockets"))
    datagrams = load_part("datagrams", "sockets")
    return SimpleNamespace(
        name=name,
        Hub=hub.Hub,
        Fiber=fiber.Fiber,
        current=hub.current,
        here=hub.here,
        turning_hub=hub.turning_hub,
        FiberSocket=sockets.FiberSocket,
        FiberTLSSocket=load_part("tlssockets").FiberTLSSocket,
        accept_many=load_part("accepting").accept_many,
        Semaphore=load_part("semaphore").Semaphore,
        Records=load_part("records", "sockets.tls").Records,
        DatagramRun=load_part("runs", "sockets").Run,
        DatagramSocket=datagrams.DatagramSocket,
    )


def part(module: str, room: str) -> Any:
    """A module of the chosen engine that has one source for both: compiled, it has a `_` before it."""
    return importlib.import_module(f"everserve.{room}.{_PREFIXES[engine]}{module}")


def _choose(wanted: str) -> Any:
    if wanted not in _CHOICES:
        raise EngineUnavailableError(
            f"EVERSERVE_ENGINE={wanted!r} is no engine: choose one of {', '.join(_CHOICES)}"
        )
    had_no_gil = _has_no_gil()
    chosen = _take_best(had_no_gil) if wanted == "auto" else _insist(wanted)
    if had_no_gil:
        _check_gil(chosen.name)
    return chosen


def _has_no_gil() -> bool:
    """Whether this is a free-threaded Python, with its GIL off."""
    return not getattr(sys, "_is_gil_enabled", lambda: True)()


def _take_best(has_no_gil: bool) -> Any:
    if has_no_gil:
        logger.warning(
            "this Python runs without a GIL: the engine in Python is used, as the compiled one needs "
            "the GIL; EVERSERVE_ENGINE=python chooses it without this line"
        )
        return load("python")
    try:
        return load("native")
    except ImportError as missing:
        chosen = load("python")
        chosen.excuse = str(missing)
        return chosen


def _check_gil(name: str) -> None:
    """Say what the import of an engine, and of greenlet, did to a GIL that was off."""
    if not _has_no_gil():
        logger.warning("the GIL is on now, as the %s engine or greenlet needs it", name)
    elif name == "native":
        raise EngineUnavailableError(
            "EVERSERVE_ENGINE=native cannot be met without the GIL: run Python with PYTHON_GIL=1, "
            "or choose auto"
        )


def _insist(wanted: str) -> Any:
    try:
        return load(wanted)
    except ImportError as missing:
        raise EngineUnavailableError(
            f"EVERSERVE_ENGINE={wanted} cannot be met ({missing}): "
            "install everserve with EVERSERVE_NATIVE=yes and a C compiler, or choose auto"
        ) from missing


_chosen: Final = _choose(os.environ.get("EVERSERVE_ENGINE", "auto").strip().lower() or "auto")
engine: Final[Literal["native", "python"]] = _chosen.name

if sys.version_info < (3, 14):  # from there on, such a thread stands still by itself
    atexit.register(halt_hubs)


def explain_slow_engine() -> str | None:
    """One line where the slow engine runs and no one has chosen it: why, and how to change that."""
    excuse = getattr(_chosen, "excuse", None)
    if excuse is None:
        return None
    return (
        f"the engine in Python runs, the slow one, as the compiled one cannot be loaded ({excuse}):"
        " install a C compiler, then everserve again with EVERSERVE_NATIVE=yes;"
        " EVERSERVE_ENGINE=python chooses the slow one without this line"
    )


if TYPE_CHECKING:
    from everserve.fibers.accepting import accept_many
    from everserve.fibers.fiber import Fiber
    from everserve.fibers.hub import Hub, current, here, turning_hub
    from everserve.fibers.semaphore import Semaphore
    from everserve.fibers.sockets import FiberSocket
    from everserve.fibers.tlssockets import FiberTLSSocket
    from everserve.sockets.datagrams import DatagramSocket
    from everserve.sockets.runs import Run as DatagramRun
    from everserve.sockets.tls.records import Records
else:
    DatagramRun = _chosen.DatagramRun
    DatagramSocket = _chosen.DatagramSocket
    Hub = _chosen.Hub
    Fiber = _chosen.Fiber
    current = _chosen.current
    here = _chosen.here
    turning_hub = _chosen.turning_hub
    FiberSocket = _chosen.FiberSocket
    FiberTLSSocket = _chosen.FiberTLSSocket
    accept_many = _chosen.accept_many
    Records = _chosen.Records
    Semaphore = _chosen.Semaphore
