"""Where a server is between its making and its end: one state, changed in one place.

The conductor changes it; the accept loop and a stop read it; threads wait on its notifier.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from threading import get_ident
from typing import Any

from everserve.errors import AlreadyServingError
from everserve.lifecycle.notifier import Notifier
from everserve.sockets.wakeup import Wakeup

__all__ = ["LifeCycle", "ServerState"]


class ServerState(enum.Enum):
    """The life cycle of a server, in order; ``READY`` comes again after ``shutdown()``."""

    READY = "ready"
    SERVING = "serving"
    SUSPENDED = "suspended"
    DRAINING = "draining"
    STOPPED = "stopped"


class LifeCycle:
    """The state of one server, with the means to change it from any thread or signal handler.

    Takes no lock. ``runner()`` identifies what runs now: a thread, or a fiber. ``session`` is a new
    object for each ``serve_forever`` while it runs, so that a waiter can tell one run from the next.
    ``gated`` is true while the accept loop waits for room, and is to be woken when there is some.
    """

    def __init__(self, runner: Callable[[], int] = get_ident) -> None:
        self._runner = runner
        self._serving: int | None = None
        self._state = ServerState.READY
        self._shutdown_requested = False
        self.accepting = False  # the accept loop is to go on, suspended or not
        self.taking = False  # requests are to be taken
        self.notifier = Notifier()
        self.session: object | None = None
        self.announced = False  # the run accepts, and its subscribers know
        self.suspended = False
        self.gated = False
        self.keeps_listener = False  # a stop has left it open, for requests that reply through it
        self._stops: dict[str, Any] = {}
        self._wakeup: Wakeup | None = None

    @property
    def shutdown_requested(self) -> bool:
        """Set it to end the accept loop; it is remembered until a run has ended by it."""
        return self._shutdown_requested

    @shutdown_requested.setter
    def shutdown_requested(self, requested: bool) -> None:
        self._shutdown_requested = requested
        self._derive()
        if requested:
            self.wake()

    @property
    def state(self) -> ServerState:
        """Where the server is."""
        return self._state

    @state.setter
    def state(self, state: ServerState) -> None:
        self._state = state
        self._derive()

    def _derive(self) -> None:
        """Set what the accept loop asks at each request: fields, as a property takes longer.

        Again where another thread has changed the state meanwhile: the last to write has seen it all.
        """
        while True:
            state, requested = self._state, self._shutdown_requested
            self.accepting = not requested and state in (ServerState.SERVING, ServerState.SUSPENDED)
            self.taking = not requested and state is ServerState.SERVING
            if state is self._state and requested is self._shutdown_requested:
                return

    @property
    def draining(self) -> bool:
        """True once a stop has begun."""
        return self.state in (ServerState.DRAINING, ServerState.STOPPED)

    @property
    def stop(self) -> Any:
        """The ``Stop`` that has begun, ``None`` before."""
        return self._stops.get("stop")

    def begin_stop(self, stop: Any) -> Any:
        """Take ``stop`` as the stop of this server, or return the one that began before.

        One step: many may call at once.
        """
        return self._stops.setdefault("stop", stop)

    def forget_stop(self) -> None:
        """Begin anew, with another socket."""
        self._stops.clear()

    def begin(self) -> bool:
        """Start a run in this thread. False if a shutdown was asked for before."""
        if self.session is not None:
            raise AlreadyServingError("serve_forever() runs already: one run at a time")
        self._serving = self._runner()
        self.session = object()  # first: a shutdown() either sees it and waits, or is seen here
        if self._shutdown_requested:
            self.end()
            return False
        self.state = ServerState.SUSPENDED if self.suspended else ServerState.SERVING
        if self.stop is not None and self.stop.report is None:  # it began in this moment
            self.state = ServerState.DRAINING
        self.notifier.notify()
        return True

    def end(self) -> None:
        """End the run: a caller that waits for it goes on."""
        self.shutdown_requested = False
        self.announced = self.gated = False
        self.session = self._serving = None
        if self.state in (ServerState.SERVING, ServerState.SUSPENDED):
            self.state = ServerState.READY
        self.notifier.notify()

    def announce(self) -> None:
        """Say that the run accepts, and that its subscribers know."""
        self.announced = True
        self.notifier.notify()

    def move(self, state: ServerState) -> None:
        """Change the state; wake the accept loop and every waiter."""
        self.state = state
        self.wake()
        self.notifier.notify()

    def suspend(self, suspended: bool) -> None:
        """Stop or go on accepting; before ``serve_forever`` it is remembered."""
        self.suspended = suspended
        if self.state in (ServerState.SERVING, ServerState.SUSPENDED):
            self.move(ServerState.SUSPENDED if suspended else ServerState.SERVING)

    def close(self) -> None:
        """Note that the listener is gone, for good."""
        self.move(ServerState.STOPPED)
        self._wakeup = None

    def serving_here(self) -> bool:
        """True where the accept loop runs, and in what it calls."""
        return self._serving == self._runner()

    def serving_elsewhere(self) -> bool:
        """True while another thread, or another fiber, runs the accept loop."""
        return self.session is not None and not self.serving_here()

    def wakeup(self) -> Wakeup:
        """What the accept loop waits on beside its listener."""
        if self._wakeup is None:
            self._wakeup = Wakeup()
        return self._wakeup

    def wake(self) -> None:
        """Let the accept loop look again at what it waits for."""
        wakeup = self._wakeup
        if wakeup is not None:
            wakeup.wake()
