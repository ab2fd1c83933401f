"""The life cycle of a server: one state, changed in one place.

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

    Takes no lock. ``runner()`` identifies the current thread or fiber. ``session`` is a new object for
    each run of ``serve_forever``, and ``ended`` counts the runs that have ended, so that a waiter can
    distinguish one run from the next. ``gated`` is true while the accept loop waits for room, and must
    be woken when there is some.
    """

    def __init__(self, runner: Callable[[], int] = get_ident) -> None:
        self._runner = runner
        self._serving: int | None = None
        self._state = ServerState.READY
        self._shutdown_requested = False
        self.accepting = False  # the accept loop must go on, suspended or not
        self.taking = False  # requests must be accepted: false while suspended
        self.notifier = Notifier()
        self.session: object | None = None
        self.ended = 0  # how many runs have ended
        self.turns = 0  # of the accept loop, so that others see that it goes on
        self.announcements = 0  # how many runs have accepted, and emitted the event
        self.suspended = False
        self.gated = False
        self.keeps_listener = False  # a stop leaves it open for requests that reply through it
        self._stops: dict[str, Any] = {}
        self._wakeup: Wakeup | None = None

    @property
    def shutdown_requested(self) -> bool:
        """Set it to end the accept loop. It stays set until a run has ended because of it."""
        return self._shutdown_requested

    @shutdown_requested.setter
    def shutdown_requested(self, requested: bool) -> None:
        self._shutdown_requested = requested
        self._derive()
        if requested:
            self.wake()
            self.notifier.notify()

    @property
    def state(self) -> ServerState:
        """The current state."""
        return self._state

    @state.setter
    def state(self, state: ServerState) -> None:
        self._state = state
        self._derive()

    def _derive(self) -> None:
        """Set the fields that the accept loop checks at each request: a property would be slower.

        Repeated if another thread has changed the state meanwhile: the last write then has all changes.
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
        """Make ``stop`` the stop of this server, or return the one that began before.

        One atomic step: several threads may call it at once.
        """
        return self._stops.setdefault("stop", stop)

    def forget_stop(self) -> None:
        """Forget the stop: the server has a new socket."""
        self._stops.clear()

    def begin(self) -> bool:
        """Start a run in this thread. False if a shutdown was requested before."""
        if self.session is not None:
            raise AlreadyServingError("serve_forever() runs already: one run at a time")
        self._serving = self._runner()
        self.session = object()  # first: shutdown() waits for it, or is noticed below
        if self._shutdown_requested:
            self.end()
            return False
        self.state = ServerState.SUSPENDED if self.suspended else ServerState.SERVING
        if self.stop is not None and self.stop.report is None:  # it began just now
            self.state = ServerState.DRAINING
        self.notifier.notify()
        return True

    def end(self) -> None:
        """End the run, and wake a caller that waits for its end."""
        self.shutdown_requested = False
        self.gated = False
        self.ended += 1
        self.session = self._serving = None
        if self.state in (ServerState.SERVING, ServerState.SUSPENDED):
            self.state = ServerState.READY
        self.notifier.notify()

    def announce(self) -> None:
        """Note that the run accepts, and that the event was emitted."""
        self.announcements += 1
        self.notifier.notify()

    def move(self, state: ServerState) -> None:
        """Change the state; wake the accept loop and every waiter."""
        self.state = state
        self.wake()
        self.notifier.notify()

    def suspend(self, suspended: bool) -> None:
        """Suspend or resume accepting. Before ``serve_forever``, it applies to the next run."""
        self.suspended = suspended
        if self.state in (ServerState.SERVING, ServerState.SUSPENDED):
            self.move(ServerState.SUSPENDED if suspended else ServerState.SERVING)

    def close(self) -> None:
        """Note that the listener is closed for good."""
        self.move(ServerState.STOPPED)
        self._wakeup = None

    def serving_here(self) -> bool:
        """True in the thread or fiber of the accept loop."""
        return self._serving == self._runner()

    def serving_elsewhere(self) -> bool:
        """True while another thread, or another fiber, runs the accept loop."""
        return self.session is not None and not self.serving_here()

    def prepare(self) -> None:
        """Make the wake-up as the server is made, not when it is to serve and no descriptor is left."""
        self._wakeup = self._wakeup or Wakeup()

    def wakeup(self) -> Wakeup:
        """The descriptor that the accept loop waits on in addition to its listener.

        A new one once the server was closed, and in a forked child that serves by itself.
        """
        wakeup = self._wakeup
        if wakeup is None or not wakeup.is_own:
            self._wakeup = wakeup = Wakeup()
        return wakeup

    def wake(self) -> None:
        """Wake the accept loop, so that it checks again."""
        wakeup = self._wakeup
        if wakeup is not None:
            wakeup.wake()
