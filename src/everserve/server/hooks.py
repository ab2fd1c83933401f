"""The hooks of a server: what the parts behind it call, and nothing else of it.

They are the documented ones of ``socketserver``, so that the same parts run the standard library's own
servers under a mix-in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

__all__ = ["Hooks", "default_hook", "is_default", "of_server"]

HookT = TypeVar("HookT", bound=Callable[..., Any])
AttributeT = TypeVar("AttributeT")

_DEFAULTS: set[Any] = set()


class Hooks(Protocol):
    """A server, as its parts see it. The hooks are described on ``BaseServer``."""

    server_address: Any
    RequestHandlerClass: Any

    def fileno(self) -> int: ...
    def get_request(self) -> tuple[Any, Any]: ...
    def verify_request(self, request: Any, client_address: Any) -> bool: ...
    def process_request(self, request: Any, client_address: Any) -> None: ...
    def service_actions(self) -> None: ...
    def handle_timeout(self) -> None: ...
    def finish_request(self, request: Any, client_address: Any) -> None: ...
    def handle_error(self, request: Any, client_address: Any) -> None: ...
    def shutdown_request(self, request: Any) -> None: ...
    def close_request(self, request: Any) -> None: ...
    def server_close(self) -> None: ...
    def _handle_request_noblock(self) -> object: ...


def default_hook(hook: HookT) -> HookT:
    """Mark a hook's own body: where no one overrides it, a loop may take a shorter way."""
    _DEFAULTS.add(hook)
    return hook


def is_default(hook: Any) -> bool:
    """True if the bound method ``hook`` is one that no subclass and no instance has overridden."""
    return getattr(hook, "__func__", None) in _DEFAULTS


def thread_hook(hooks: Any) -> Any:
    """The hook ``process_request_thread``, ``None`` where the class has none.

    The class is asked first: a ``__getattr__`` of the program may not stand the question.
    """
    return hooks.process_request_thread if hasattr(type(hooks), "process_request_thread") else None


class _OfServer:
    """A method or reading that only an instance of a server class has; see ``of_server``."""

    def __init__(self, attribute: Any) -> None:
        self._attribute = attribute
        self.__doc__ = attribute.__doc__
        self.__wrapped__ = attribute  # for `inspect.unwrap`

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is not None and not hasattr(owner, "finish_request"):
            raise AttributeError(
                f"{owner.__name__!r} object has no attribute {self._name!r}: it is no server"
            )
        return self._attribute.__get__(instance, owner)


def of_server(attribute: AttributeT) -> AttributeT:
    """Have instances of a mix-in without a server lack this attribute.

    A mix-in of the standard library has no ``shutdown``, and programs make a stand-in for a socket
    of one (``class Stub(ThreadingMixIn)`` in the tests of Django): a handler that asks for a
    ``shutdown`` there must not find that of a server.
    """
    return cast(AttributeT, _OfServer(attribute))
