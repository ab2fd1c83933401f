"""Find the handler class that the command line names: ``module:Class`` or ``file.py:Class``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from types import ModuleType
from typing import Any

from everserve.errors import HandlerError

__all__ = ["find_handler", "split_address"]

_WITH_ADDRESS = re.compile(r"(?P<target>.*?:[\w.]+)=(?P<address>.+)", re.DOTALL)


def split_address(text: str) -> tuple[str, str | None]:
    """``module:Class=address`` as the target and its address; ``None`` where there is none."""
    match = _WITH_ADDRESS.fullmatch(text)
    return (text, None) if match is None else (match["target"], match["address"])


def find_handler(target: str) -> Any:
    """The handler that ``target`` names. Raises ``HandlerError`` with one line of explanation."""
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise HandlerError(f"{target!r}: write it as module:Class or path/file.py:Class")
    found: Any = _load_file(place) if place.endswith(".py") else _load_module(place)
    for part in name.split("."):
        if not hasattr(found, part):
            raise HandlerError(f"there is no {name!r} in {place!r}{_handlers_in(found)}")
        found = getattr(found, part)
    if not _is_handler(found):
        raise HandlerError(
            f"{target!r} is not a request handler: give a class with a method handle()"
        )
    return found


def _is_handler(found: Any) -> bool:
    if inspect.isclass(found):
        return callable(getattr(found, "handle", None))
    return inspect.isfunction(found) and len(inspect.signature(found).parameters) == 3


def _handlers_in(found: Any) -> str:
    names = [
        name
        for name, value in vars(found).items()
        if inspect.isclass(value) and value.__module__ == getattr(found, "__name__", None)
        if _is_handler(value)
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
    except Exception as error:
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
    except Exception as error:
        raise _unloadable(path, error) from error
    return module


def _unloadable(place: str, error: Exception) -> HandlerError:
    """The error for a module that cannot be loaded; it names the last line of the user's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "importlib" not in f.filename and f.filename != __file__]
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return HandlerError(f"cannot load {place!r}: {type(error).__name__}: {error}{where}")
