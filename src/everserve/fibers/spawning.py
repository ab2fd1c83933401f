"""`spawn`: a function that runs beside its caller, as a fiber or as a thread.

Where a hub runs in the thread of the caller, it is a fiber of that hub; elsewhere it is a thread with
the same methods.
"""

import contextvars
import threading
from collections.abc import Callable
from typing import Any, TypeVarTuple

from everserve.fibers import engines
from everserve.fibers.exits import FiberExit
from everserve.fibers.log import logger
from everserve.fibers.sync import Event
from everserve.fibers.threadwaits import here

__all__ = ["SpawnedThread", "spawn"]


Arguments = TypeVarTuple("Arguments")


def spawn(
    function: Callable[[*Arguments], object], /, *arguments: *Arguments
) -> "engines.Fiber | SpawnedThread":
    """Run `function(*arguments)` beside the caller, and return what to `join` or `kill`.

    It is a fiber where a hub runs in this thread, a daemon thread elsewhere. What it raises is
    logged. Raises `RuntimeError` if the system has no thread left.
    """
    fiber = engines.current()
    hub = engines.turning_hub() if fiber is None else fiber.hub
    if hub is None:
        return SpawnedThread(function, arguments)
    spawned: engines.Fiber = hub.spawn(function, *arguments)
    return spawned


class SpawnedThread:
    """A function that runs in a daemon thread, with the methods of a fiber."""

    def __init__(self, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.name: str = getattr(function, "__qualname__", "?")
        self.notify: Callable[[], object] | None = None  # ends its present wait
        self._pending: BaseException | None = None
        self._ended = Event()
        context = contextvars.copy_context()
        target = (context.run, function, *arguments)
        threading.Thread(target=self._run, args=target, name=self.name, daemon=True).start()

    def __repr__(self) -> str:
        return f"<SpawnedThread {self.name} {'dead' if self.dead else 'running'} at {id(self):#x}>"

    @property
    def dead(self) -> bool:
        """Whether it has ended, its `finally` blocks included."""
        return self._ended.is_set()

    def kill(self, exc: BaseException | type[BaseException] | None = None) -> None:
        """Raise `exc` (default: a `FiberExit`) where it waits in a function of `everserve.fibers`.

        It goes on until it waits there: a thread that computes, or waits in the kernel, cannot be
        interrupted.
        """
        if here.spawned is self:
            raise _made(exc)
        if not isinstance(self._pending, FiberExit):
            self._pending = _made(exc)
        if self.notify is not None:
            self.notify()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it is dead, at most `timeout` seconds (None: for ever); True if it is."""
        return self._ended.wait(timeout)

    def raise_pending(self) -> None:
        """Raise what `kill` has left, in the thread itself."""
        if self._pending is not None:
            error, self._pending = self._pending, None
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame: break the cycle

    def _run(self, *call: Any) -> None:
        here.spawned = self
        run, *arguments = call
        try:
            run(*arguments)
        except (FiberExit, SystemExit):
            pass  # ends this thread only, as it would end a fiber only
        except BaseException as error:
            logger.error("thread %s failed: %r", self.name, error, exc_info=error)
        finally:
            here.spawned = None
            self._ended.set()


def _made(exc: BaseException | type[BaseException] | None) -> BaseException:
    if exc is None:
        return FiberExit()
    return exc() if isinstance(exc, type) else exc
