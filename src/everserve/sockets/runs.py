"""Runs the handlers of a batch of datagrams, one after the other.

``DatagramFlow`` makes a ``Run`` for each batch that it received, and gives it to the strategy. This is
the reference of ``_runs.pyx``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from everserve.sockets.datagrams import Exchange, OnError

__all__ = ["CONSTRUCTORS", "NO_OPS", "Run", "constructor", "no_op"]

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


class Run:
    """Handles the datagrams of a batch, one after the other, with nothing around each.

    ``handler(request, address, server)`` is called in a context of its own; ``on_error(request,
    address, error)`` with what it raises. ``request`` and ``address`` are those of the handler that
    runs. Whoever makes an entry for it sets ``noted``; then ``on_end(request)`` is called at its end.
    ``runner`` is the thread or fiber.
    """

    def __init__(
        self,
        exchange: Exchange,
        received: list[tuple[Any, Any]],
        handler: Callable[..., object],
        server: Any,
        on_error: OnError,
        on_end: Callable[[Any], object],
    ) -> None:
        self._parts = handler, server, on_error, on_end
        self._exchange = exchange
        self._received = received[::-1]
        self._counted = 0
        self.request: Any = None
        self.address: Any = None
        self.runner: int | None = None
        self.noted = False

    def successor(self) -> Run:
        """Another run, for what is left of the same batch: this one may wait in a handler."""
        run = Run(self._exchange, [], *self._parts)
        run._received = self._received
        return run

    @property
    def left(self) -> int:
        """How many datagrams no handler has begun with."""
        return len(self._received)

    def count(self) -> int:
        """How many handlers this run has begun with since the last call."""
        counted, self._counted = self._counted, 0
        return counted

    def handle(self) -> None:
        """Handle what is left."""
        handler, server, on_error, on_end = self._parts
        while self._received:
            request, address = self._received.pop()
            self._counted += 1
            self.request, self.address = request, address
            try:
                copy_context().run(handler, request, address, server)
            except Exception as error:
                on_error(request, address, error)
            finally:
                self.request = self.address = None
                if self.noted:
                    self.noted = False
                    on_end(request)
