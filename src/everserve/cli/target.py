"""Find the handler class that the command line names: ``module:Class`` or ``file.py:Class``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
import sysconfig
import traceback
from types import ModuleType
from typing import Any

from everserve.errors import EverserveError, HandlerError
from everserve.escaping import escaped
from everserve.lifecycle.loading import loading
from everserve.mistakes import handler_fault

__all__ = ["find_handler", "is_address", "split_address"]

_WITH_ADDRESS = re.compile(r"(?P<target>.*?:[\w.]+)=(?P<address>.+)", re.DOTALL)


def split_address(text: str) -> tuple[str, str | None]:
    """``module:Class=address`` as the target and its address; ``None`` where there is none."""
    match = _WITH_ADDRESS.fullmatch(text)
    return (text, None) if match is None else (match["target"], match["address"])


def is_address(text: str) -> bool:
    """True for what stands where a target is to be, and has the form of an address."""
    return "://" in text or re.fullmatch(r"unix\w*:.*|systemd:.*|[^/]*:\d+", text) is not None


_FOREIGN = (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
    *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")),
)
"""Where the code of everserve, of the standard library and of installed packages is."""


def find_handler(target: str) -> Any:
    """The handler that ``target`` names. Raises ``HandlerError`` with one line of explanation."""
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise HandlerError(f"{target!r}: write it as module:Class or path/file.py:Class")
    with loading():
        found: Any = _load_file(place) if place.endswith(".py") else _load_module(place)
    for part in name.split("."):
        if not hasattr(found, part):
            raise HandlerError(f"there is no {name!r} in {place!r}{_handlers_in(found)}")
        found = getattr(found, part)
    fault = handler_fault(found, awaits=None)
    if fault is not None:
        raise HandlerError(f"{target!r} is not a request handler: {fault}")
    return found


def _handlers_in(found: Any) -> str:
    names = [
        name
        for name, value in vars(found).items()
        if inspect.isclass(value) and value.__module__ == getattr(found, "__name__", None)
        if handler_fault(value, awaits=None) is None
    ]
    return f"; it has {', '.join(names)}" if names else ""


def _load_module(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise HandlerError(f"there is no module {name!r} here or on the path") from None
        raise _unloadable(name, error) from error
    except (Exception, SystemExit) as error:
        raise _unloadable(name, error) from error


def _load_file(path: str) -> ModuleType:
    name = os.path.basename(path).removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, path)
    if not os.path.isfile(path) or spec is None or spec.loader is None:
        raise HandlerError(f"there is no file {path!r}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _unloadable(path, error) from error
    return module


def _unloadable(place: str, error: BaseException) -> HandlerError:
    """The error for a module that cannot be loaded; it names the last line of the user's own code."""
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, EverserveError):
        what = str(error)
    elif isinstance(error, SystemExit):
        what = f"it ends the process, by sys.exit({error.code!r})"
    elif isinstance(error, SyntaxError) and error.filename:
        what = f"{type(error).__name__}: {error.msg}"
    return HandlerError(f"cannot load {place!r}: {escaped(what)}{_where(error)}")


def _where(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}, line {error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen") and frame.filename != __file__
    ]
    own = [frame for frame in frames if not frame.filename.startswith(_FOREIGN)] or frames
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
