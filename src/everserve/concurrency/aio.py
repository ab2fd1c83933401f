"""A task of asyncio for each request, on a loop of asyncio, which may be the program's own.

The accept loop is a guest of that loop: it runs in a greenlet, and its waits let the loop go on. Each
connection begins in a fiber, which takes the steps of admission and then carries the task of its
handler. So all but the handler is the code of the fibers.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from everserve.concurrency.hubs import HubStrategy, report_failure
from everserve.concurrency.hubselector import HubSelector
from everserve.concurrency.strategy import Condition, MovableDeadline, StrategyParts
from everserve.errors import HubError
from everserve.fibers.engines import Hub, current
from everserve.fibers.hosting import Guest, Host, current_guest, run_loop

if TYPE_CHECKING:
    import asyncio

__all__ = ["AsyncStrategy"]

_LAST_TURNS = 0.1
"""Seconds in which tasks end that are cancelled as the run ends."""


class AsyncStrategy(HubStrategy):
    """Runs each request in a task, or in a fiber where ``handle`` is a plain ``def``."""

    name: ClassVar[str] = "asyncio"
    is_carried: ClassVar[bool] = True
    awaits: ClassVar[bool] = True

    def __init__(self, parts: StrategyParts) -> None:
        super().__init__(parts)
        self._guests: list[Guest] = []

    # -- the loop ------------------------------------------------------------------------------

    def carry(self, serve: Callable[[], object]) -> None:
        """Call ``serve`` as a guest: of a loop that runs it already, or of one of its own."""
        if current_guest() is not None:
            serve()
            return
        run_loop(self._loop_factory(), self.host(serve), self._interrupt)

    async def host(self, serve: Callable[[], object]) -> None:
        """Call ``serve`` as a guest of the running loop, and wait for its end."""
        import asyncio  # noqa: PLC0415

        host = Host(Hub(on_error=report_failure), asyncio.get_running_loop())
        host.open()
        guest = Guest(host, serve)
        self._guests.append(guest)
        try:
            guest.start()
            while not guest.done.done():
                try:
                    await asyncio.wait([guest.done])
                except asyncio.CancelledError as error:
                    guest.interrupt(error)
        finally:
            self._guests.remove(guest)
            host.close()
        guest.result()

    def _interrupt(self, error: BaseException) -> None:
        for guest in self._guests:
            guest.interrupt(error)

    def _loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop]:
        factory = self._settings.read().loop_factory
        return default_loop_factory() if factory is None else factory.new

    # -- where a request runs ------------------------------------------------------------------

    def start(self, hooks: Any, request: Any, client_address: Any) -> None:
        """Start the fiber; without a run of the accept loop, on a loop for this request alone."""
        if self._hub is None and current_guest() is None:
            self.carry(lambda: self._run_alone(hooks, request, client_address))
        else:
            super().start(hooks, request, client_address)

    def _run_alone(self, hooks: Any, request: Any, client_address: Any) -> None:
        guest = _here()
        fiber = self._spawn(guest.host.hub, hooks, request, client_address)
        fiber.on_end(guest.notify)
        while not fiber.dead:
            guest.wait(None)

    # -- the accept loop -----------------------------------------------------------------------

    def _new_selector(self) -> HubSelector:
        return GuestSelector(_here())

    # -- the stop ------------------------------------------------------------------------------

    def wait_until(self, condition: Condition, deadline: MovableDeadline = lambda: None) -> bool:
        """Wait for a change of the server's state; a fiber, and the accept loop, let the loop go on."""
        guest = current_guest()
        if guest is None or current() is not None:
            return super().wait_until(condition, deadline)
        return self._life.notifier.wait_until(condition, deadline, waiter=_GuestWaiter(guest))


class GuestSelector(HubSelector):
    """A ``HubSelector`` in a guest: the host turns the hub while it waits."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest.host.hub)
        self._guest = guest

    def _note_ready(self, key: Any, events: int) -> None:
        super()._note_ready(key, events)
        self._guest.notify()

    def select(self, timeout: float | None = None) -> list[Any]:
        """Let the loop go on until a descriptor is readable, or for ``timeout`` seconds."""
        self._ready.clear()
        self._guest.wait(timeout)
        return self._ready

    def turn(self, timeout: float) -> None:
        """Let the loop go on for ``timeout`` seconds at most, or until woken."""
        self._guest.wait(timeout)

    def wake(self) -> None:
        """End the wait of ``turn``. For any thread."""
        self.hub.call_from_thread(self._guest.notify)

    def close_hub(self) -> None:
        """Kill the fibers that are left, and let their tasks end. The host closes the hub."""
        if self.hub.watcher is not None:
            self.hub.watcher.leave(self.hub)
        over = monotonic() + _LAST_TURNS
        while self.hub.fibers and (left := over - monotonic()) > 0:
            for fiber in self.hub.parked_fibers():
                fiber.on_end(self._guest.notify)
                if not fiber.has_pending_exception:
                    fiber.kill()
            self._guest.wait(left)


class _GuestWaiter:
    """The waiter of the accept loop's greenlet."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def put(self, item: None) -> None:
        if not self._guest.host.hub.closed:
            self._guest.host.hub.call_from_thread(self._guest.notify)

    def get(self, *, timeout: float | None) -> None:
        if not self._guest.wait(timeout):
            raise Empty


def _here() -> Guest:
    guest = current_guest()
    if guest is None:
        raise HubError(
            "an accept loop over asyncio runs as the guest of a loop: await server.serve()"
        )
    return guest


def default_loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the loop: uvloop if it is installed, or else asyncio itself."""
    try:
        import uvloop  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
    except ImportError:
        import asyncio  # noqa: PLC0415

        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
