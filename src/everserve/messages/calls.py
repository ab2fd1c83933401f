"""The calls of ``handle_message`` in the executor of a server, for one connection or one datagram."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from contextvars import copy_context
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from everserve.fibers.sync import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from everserve.executors.execution import Execution

__all__ = ["END", "Calls"]

END: Final = object()
"""The result of a ``step`` after the last one."""


class Calls:
    """Starts one call after the other, all in the same context, and waits for them.

    Called with a message it returns the reply, as ``handle_message`` does. The steps of an iterator run
    in the executor too.
    """

    __slots__ = ("_connection", "_context", "_execution", "_function", "_future", "_is_idempotent")

    def __init__(self, execution: Execution, handler: Any, connection: Any = None) -> None:
        self._execution = execution
        self._connection = connection
        self._function = handler.handle_message
        self._is_idempotent = getattr(handler, "idempotent", False) is True
        self._context = copy_context()
        self._future: Future[Any] | None = None

    def __call__(self, message: Any) -> Any:
        """Handle a message, and wait for that: in a fiber, or in this thread."""
        reply = self._wait(self.start(message))
        return self._in_steps(reply) if self.takes_steps(reply) else reply

    def start(self, message: Any) -> Future[Any]:
        """Begin to handle a message."""
        if self._execution.out_of_process:
            future = self._execution.start(self._function, message, idempotent=self._is_idempotent)
        else:
            future = self._execution.start(self._run_here, self._function, message)
        self._future = future
        return future

    def takes_steps(self, reply: Any) -> bool:
        """True for an iterator that has to run in the executor."""
        return hasattr(reply, "__next__") and not self._execution.out_of_process

    def step(self, replies: Iterator[Any]) -> Future[Any]:
        """Begin to get the next reply of an iterator; ``END`` after the last."""
        self._future = future = self._execution.start(self._run_here, next, replies, END)
        return future

    def result(self, future: Future[Any]) -> Any:
        """What a call has returned. Raises what it raised; ``ConnectionError`` if it was abandoned."""
        try:
            return self._execution.result(future)
        except CancelledError:
            raise ConnectionAbortedError("the connection was cut while its message ran") from None
        finally:
            self._future = None
            del future  # its exception refers to this frame: break the cycle

    def abandon(self) -> None:
        """Wait no longer for the call in progress. From anywhere."""
        future = self._future
        if future is not None:
            future.cancel()

    def _wait(self, future: Future[Any]) -> Any:
        try:
            if not future.done():
                done = Event()
                future.add_done_callback(lambda _: done.set())
                done.wait()
            return self.result(future)
        finally:
            future.cancel()  # of a fiber that was killed
            del future

    def _in_steps(self, replies: Iterator[Any]) -> Iterator[Any]:
        while (reply := self._wait(self.step(replies))) is not END:
            yield reply

    def _run_here(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """In a thread of the executor: so long it is the one that runs the connection."""
        connection = self._connection
        if connection is None:
            return self._context.run(function, *arguments)
        before, connection.runner = connection.runner, get_ident()
        try:
            return self._context.run(function, *arguments)
        finally:
            connection.runner = before
