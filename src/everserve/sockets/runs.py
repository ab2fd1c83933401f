"""Runs the handlers of a batch of datagrams, one after the other.

``DatagramFlow`` makes a ``Run`` for each batch that it received, and gives it to the strategy. This is
the reference of ``_runs.pyx``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

from everserve.sockets.datagrams import Exchange, OnError

__all__ = ["CONSTRUCTORS", "NO_OPS", "Account", "Run", "constructor", "no_op"]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

CONSTRUCTORS: set[Any] = set()
"""Those that set ``request``, ``client_address`` and ``server``, then call the three hooks."""

NO_OPS: set[Any] = set()
"""Hooks of a handler that need not be called."""


def constructor(function: FunctionT) -> FunctionT:
    """Mark an ``__init__`` of handlers, for ``CONSTRUCTORS``: a run may do itself what it does."""
    CONSTRUCTORS.add(function)
    return function


def no_op(function: FunctionT) -> FunctionT:
    """Mark a hook that does nothing, for ``NO_OPS``."""
    NO_OPS.add(function)
    return function


class Account(Protocol):
    """What a run asks, and tells, about each datagram: a ``DatagramAccount``."""

    def admit(self, run: Any, request: Any, address: Any) -> bool: ...
    def open(self, run: Any) -> object: ...
    def fail(self, run: Any, error: BaseException) -> object: ...
    def close(self, run: Any, address: Any) -> object: ...


class Run:
    """Handles the datagrams of a batch, one after the other, with nothing around each.

    ``handler(request, address, server)`` is called in a context of its own; ``on_error(request,
    address, error)`` with what it raises. ``request`` and ``address`` are those of the handler that
    runs. Whoever makes an entry for it sets ``entry``; then ``on_end(entry, request)`` is called at its
    end, and says whether it was that of the request. ``runner`` is the thread or fiber.

    ``account``, if there is one, admits each, and is told of its beginning and its end. For it are
    ``number``, that of the connection; ``began``, when it was received (monotonic); ``opened``: its
    handler has begun; ``emitting``: an event is being emitted; ``cut``: some were truncated.
    """

    entry: Any = None

    def __init__(
        self,
        exchange: Exchange,
        received: list[tuple[Any, Any]],
        handler: Callable[..., object],
        server: Any,
        on_error: OnError,
        on_end: Callable[[Any, Any], bool],
        account: Account | None = None,
    ) -> None:
        self._parts = handler, server, on_error, on_end, account
        self.server = server
        self.account = account
        self.cut = exchange.cut
        self._exchange = exchange
        self._received = received[::-1]
        self._counted = 0
        self.request: Any = None
        self.address: Any = None
        self.runner: int | None = None
        self.number: int | None = None
        self.began = 0.0
        self.opened = self.emitting = False

    def successor(self) -> Run:
        """Another run, for what is left of the same batch: this one may wait in a handler."""
        run = Run(self._exchange, [], *self._parts)
        run._received, run.cut = self._received, self.cut
        return run

    @property
    def left(self) -> int:
        """How many datagrams no handler has begun with."""
        return len(self._received)

    def take_rest(self) -> list[tuple[Any, Any]]:
        """Those that no handler has begun with; they are another's now."""
        rest = self._received[::-1]
        self._received.clear()
        return rest

    def take_entry(self) -> Any:
        """The entry of the datagram that is handled, for one caller alone; ``None`` if it has none."""
        return vars(self).pop("entry", None)

    def count(self) -> int:
        """How many handlers this run has begun with since the last call."""
        counted, self._counted = self._counted, 0
        return counted

    def handle(self) -> None:
        """Handle what is left."""
        account = self.account
        while self._received:
            request, address = self._received.pop()
            if account is None:
                self.request, self.address = request, address
            elif not account.admit(self, request, address):
                continue
            self._counted += 1
            self._handle_one(request, address)

    def _handle_one(self, request: Any, address: Any) -> None:
        handler, server, on_error, on_end, account = self._parts
        context = copy_context()
        try:
            if account is not None:
                context.run(account.open, self)
            context.run(handler, request, address, server)
        except BaseException as error:
            if account is not None:
                account.fail(self, error)
            if not isinstance(error, Exception):
                raise
            on_error(request, address, error)
        finally:
            self.request = self.address = None
            entry = self.take_entry()
            is_ended = entry is not None and on_end(entry, request)
            if account is not None and not is_ended:
                account.close(self, address)
