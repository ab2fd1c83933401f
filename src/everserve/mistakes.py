"""Mistakes that a program makes in silence, found when a server is made, before a request comes.

``serve`` and ``make_server`` refuse them. The classes only warn, as they stay the standard library's.
Each function returns one line that says what is wrong and what to do, or ``None``.
"""

from __future__ import annotations

import enum
import inspect
import os
import sys
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeVar

from everserve.errors import MistakeWarning

__all__ = [
    "DEFINE_IT",
    "TAKE_THREE",
    "HandlerKind",
    "handler_base",
    "handler_fault",
    "intended",
    "transport_fault",
    "warn",
]

DEFINE_IT = "has no handle(): define it"
"""The fault of a handler that does nothing. The standard library's classes accept it."""

TAKE_THREE = "it must take (request, client_address, server)"
"""The fault of a function with other parameters. It fails at the first request, with a traceback."""

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_WANTED = "a class with handle(), or a function of (request, client_address, server)"


def warn(text: str) -> None:
    """Issue a ``MistakeWarning`` at the line of the program that called everserve."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, MistakeWarning, stacklevel=level)


# -- base classes of handlers ----------------------------------------------------------------------


class HandlerKind(enum.Enum):
    """What a base class of handlers is for."""

    ANY = "any request"
    STREAM = "streams"
    ASYNC_STREAM = "streams, with await"
    DATAGRAM = "datagrams"
    MESSAGE = "messages"


ClassT = TypeVar("ClassT", bound=type)

_BASES: set[type] = set()
_HOOKS: dict[FunctionType, HandlerKind] = {}
"""Those of the base classes of everserve, which ``handler_base`` marks: servers do not import them."""

_STANDARD = {
    "BaseRequestHandler": HandlerKind.ANY,
    "StreamRequestHandler": HandlerKind.STREAM,
    "DatagramRequestHandler": HandlerKind.DATAGRAM,
}
"""Those of ``socketserver``, which everserve does not import, by their names there."""


def handler_base(kind: HandlerKind) -> Callable[[ClassT], ClassT]:
    """Mark a base class: what it defines is a placeholder, and not a program's own."""

    def mark(base: ClassT) -> ClassT:
        _BASES.add(base)
        _HOOKS.update((f, kind) for f in vars(base).values() if isinstance(f, FunctionType))
        return base

    return mark


def _is_base(handler: type) -> bool:
    return handler in _BASES or handler.__module__ == "socketserver"


def _kind_of_base(function: Any) -> HandlerKind | None:
    """The kind of the base class that defines a method; ``None`` for a method of the program."""
    if not isinstance(function, FunctionType):
        return None
    if function.__module__ == "socketserver":
        return _STANDARD.get(function.__qualname__.partition(".")[0])
    return _HOOKS.get(function)


# -- handlers --------------------------------------------------------------------------------------


def handler_fault(handler: Any, *, awaits: bool | None = False) -> str | None:
    """Why ``handler`` can handle no request; ``awaits``: the server runs coroutines (``None``: may)."""
    handler = typing.get_origin(handler) or handler
    if isinstance(handler, str):
        return _fault_of_text(handler)
    if isinstance(handler, ModuleType):
        return f"{handler.__name__} is a module: give one of its classes"
    if not callable(handler):
        return f"{handler!r} is no request handler: give {_WANTED}"
    return (
        _fault_of_class(handler, awaits)
        if inspect.isclass(handler)
        else _fault_of_function(handler)
    )


def _fault_of_text(text: str) -> str:
    if ":/" in text or text.startswith("unix"):
        return f"{text!r} is an address: the handler comes first, as in serve(Handler, {text!r})"
    return (
        f"{text!r} is a text: import the class, and give the class itself"
        " ('module:Class' is for the command line)"
    )


def _fault_of_function(handler: Callable[..., Any]) -> str | None:
    name = getattr(handler, "__qualname__", None) or repr(handler)
    call = getattr(type(handler), "__call__", None)  # noqa: B004  # of an object, not whether it is there
    kind = _kind_of(handler) or _kind_of(call)
    if kind is not None:
        return f"{name} {kind}"
    if not _takes_three(handler):
        return f"{name}{inspect.signature(handler)}: {TAKE_THREE}"
    return None


def _fault_of_class(handler: type, awaits: bool | None) -> str | None:
    name = handler.__name__
    if callable(getattr(handler, "serve_forever", None)):
        return f"{name} is a server class: give a request handler, {_WANTED}"
    handle = getattr(handler, "handle", None)
    if not _takes_three(handler) or (not callable(handle) and _init_of(handler) is object.__init__):
        return f"{name} is no request handler: inherit StreamRequestHandler, and define handle()"
    if _runs_handle(handler):
        fault = _fault_of_hooks(handler, awaits)
        if fault is None and _kind_of_base(handle) is HandlerKind.MESSAGE:
            return _fault_of_message_handler(handler, awaits)
        return fault or _fault_without_handle(handler)
    if _is_own(handle) and not _may_call_handle(handler):
        return (
            f"{name}.__init__ never calls handle(): call"
            " super().__init__(request, client_address, server) in it"
        )
    return None


def _init_of(handler: type) -> Any:
    return handler.__init__  # type: ignore[misc]


def _fault_of_hooks(handler: type, awaits: bool | None) -> str | None:
    """The fault of a hook that is a coroutine where no one awaits it, or is none where it must be."""
    name = handler.__name__
    base = _kind_of_base(getattr(handler, "setup", None))
    for hook in ("setup", "handle", "finish"):
        function = getattr(handler, hook, None)
        is_coroutine = inspect.iscoroutinefunction(function)
        if not (is_coroutine and awaits is not False and _is_awaited(handler)):
            kind = _kind_of(function)
            if kind is not None:
                return f"{name}.{hook} {kind}"
        elif hook == "handle" and base is HandlerKind.STREAM:
            return f"{name}.handle is 'async def': inherit AsyncStreamRequestHandler"
    if base is HandlerKind.ASYNC_STREAM:
        return _fault_of_async(handler, awaits)
    return None


def _is_awaited(handler: type) -> bool:
    """True if a constructor of everserve's runs, which runs coroutines."""
    return not _BASES.isdisjoint(handler.__mro__)


def _fault_of_async(handler: type, awaits: bool | None) -> str | None:
    handle = getattr(handler, "handle", None)
    if awaits is False:
        return (
            f"{handler.__name__} needs a loop of asyncio: use concurrency='asyncio', or AsyncMixIn"
        )
    if _is_own(handle) and inspect.isfunction(handle) and not inspect.iscoroutinefunction(handle):
        return (
            f"{handler.__name__}.handle is 'def', and its files want 'await': write 'async def', or"
            " inherit StreamRequestHandler, whose handlers run in fibers"
        )
    return None


def _kind_of(function: Any) -> str | None:
    """What is wrong with the kind of a function that is called once, and whose result is dropped."""
    if inspect.iscoroutinefunction(function):
        return (
            "is 'async def', and nothing awaits it: write 'def' and blocking calls"
            " (in fibers they block no one else), or use concurrency='asyncio' and"
            " AsyncStreamRequestHandler"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return "has a 'yield', so that a call of it does nothing: take the yield out"
    return None


def _takes_three(handler: Callable[..., Any]) -> bool:
    """False if it certainly cannot be called with request, client_address and server."""
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):  # of compiled code: not known
        return True
    try:
        signature.bind(None, None, None)
    except TypeError:
        return False
    return True


def _is_own(function: Any) -> bool:
    """True for a method of the program, or of another library; false for one of a base class."""
    return callable(function) and _kind_of_base(function) is None


def _runs_handle(handler: type) -> bool:
    """True if the constructor of a base class runs, which calls ``handle``."""
    init = _init_of(handler)
    names = _names_in(getattr(init, "__code__", None))
    return not _is_own(init) or not {"super", "__init__"}.isdisjoint(names)


def _may_call_handle(handler: type) -> bool:
    """True if the constructor uses anything that may lead to ``handle``: a method of the class."""
    code = getattr(_init_of(handler), "__code__", None)
    if code is None:
        return True
    return any(callable(getattr(handler, name, None)) for name in _names_in(code))


def _names_in(code: CodeType | None) -> Iterator[str]:
    """The names of globals and attributes that a function uses, those of inner functions included."""
    if code is None:
        return
    yield from code.co_names
    yield from code.co_freevars
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def _fault_without_handle(handler: type) -> str | None:
    """The fault of a subclass that defines none of the hooks; the base classes are placeholders."""
    names = ("__init__", "setup", "handle", "finish")
    if _is_base(handler) or any(_is_own(getattr(handler, name, None)) for name in names):
        return None
    own = [name for cls in handler.__mro__ if not _is_base(cls) for name in vars(cls)]
    near = next((name for name in own if intended(name, ["handle"])), None)
    hint = f", did you mean it by {near}()?" if near else ""
    return f"{handler.__name__} {DEFINE_IT}{hint}"


def _fault_of_message_handler(handler: Any, awaits: bool | None) -> str | None:
    name = handler.__name__
    method = getattr(handler, "handle_message", None)
    if not _is_own(method):
        return f"{name} has no handle_message(): define it"
    for hook in ("handle_message", "on_connect", "on_bad_message", "on_disconnect"):
        function = getattr(handler, hook, None)
        if inspect.isasyncgenfunction(function):
            return f"{name}.{hook} {_kind_of(function)}"
        if inspect.iscoroutinefunction(function) and awaits is False:
            return (
                f"{name}.{hook} is 'async def', and nothing awaits it: write 'def' and blocking"
                " calls, or use concurrency='asyncio'"
            )
    codec = getattr(handler, "codec", None)
    if not all(callable(getattr(codec, method, None)) for method in ("decode", "encode")):
        return f"{name}.codec = {codec!r}: give a codec, such as everserve.Lines()"
    return None


def transport_fault(handler: Any, *, datagrams: bool) -> str | None:
    """Why ``handler``, a class for streams or for datagrams, cannot handle the other kind."""
    if not inspect.isclass(handler):
        return None
    base = _kind_of_base(getattr(handler, "setup", None))
    if datagrams and base in (HandlerKind.STREAM, HandlerKind.ASYNC_STREAM):
        return f"{handler.__name__} is for streams: for datagrams inherit DatagramRequestHandler"
    if not datagrams and base is HandlerKind.DATAGRAM:
        return f"{handler.__name__} is for datagrams: for streams inherit StreamRequestHandler"
    return None


# -- names -----------------------------------------------------------------------------------------


def intended(name: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that was probably meant by ``name``: one slip of the keyboard away.

    A slip is a letter too many, too few, wrong, or two letters exchanged. Case and underscores do not
    count. Two slips are no sign: ``file_timeout`` is not ``idle_timeout``.
    """
    if name.startswith("_"):
        return None
    plain = _plain(name)
    for option in known:
        if option == name:
            return None
        if _is_one_slip_away(plain, _plain(option)):
            return option
    return None


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _is_one_slip_away(left: str, right: str) -> bool:
    if abs(len(left) - len(right)) > 1:
        return False
    if left == right:
        return True
    shortest = min(len(left), len(right))
    start = next((n for n in range(shortest) if left[n] != right[n]), shortest)
    left, right = left[start:], right[start:]
    return (
        left[1:] == right[1:]
        or left[1:] == right
        or left == right[1:]
        or (left[:2] == right[1::-1] and left[2:] == right[2:])
    )
