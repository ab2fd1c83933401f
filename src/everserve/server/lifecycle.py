"""Where a server is between its making and its end: one state, changed in one place.

``BaseServer`` owns a ``Life``; the accept loop and ``stop`` read it, threads wait on its bell.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from threading import get_ident

from everserve.errors import AlreadyServingError
from everserve.server.bell import Bell
from everserve.sockets.wakeup import Wakeup

__all__ = ["Life", "State"]


class State(enum.Enum):
    """The life cycle of a server, in order; ``READY`` comes again after ``shutdown()``."""

    READY = "ready"
    SERVING = "serving"
    SUSPENDED = "suspended"
    DRAINING = "draining"
    STOPPED = "stopped"


class Life:
    """The state of one server, with the means to change it from any thread or signal handler.

    Takes no lock. ``runner()`` tells who runs now: a thread, or a fiber. ``session`` is a new object
    for each ``serve_forever`` while it runs, so that a waiter can tell one run from the next.
    """

    def __init__(self, runner: Callable[[], int] = get_ident) -> None:
        self._runner = runner
        self._serving: int | None = None
        self.state = State.READY
        self.bell = Bell()
        self.session: object | None = None
        self.announced = False  # the run accepts, and has said so
        self.suspended = False
        self._shutdown_requested = False
        self._wakeup: Wakeup | None = None

    @property
    def shutdown_requested(self) -> bool:
        """Set it to end the accept loop; it is remembered until a loop has ended by it."""
        return self._shutdown_requested

    @shutdown_requested.setter
    def shutdown_requested(self, requested: bool) -> None:
        self._shutdown_requested = requested
        if requested:
            self.wake()

    @property
    def accepting(self) -> bool:
        """True while the accept loop is to go on, suspended or not."""
        return not self._shutdown_requested and self.state in (State.SERVING, State.SUSPENDED)

    @property
    def taking(self) -> bool:
        """True while requests are to be taken: as ``accepting``, but not while suspended."""
        return not self._shutdown_requested and self.state is State.SERVING

    def begin(self) -> bool:
        """Start a run in this thread. False if a shutdown was asked for before."""
        if self.session is not None:
            raise AlreadyServingError("serve_forever() runs already: one run at a time")
        if self._shutdown_requested:
            self._shutdown_requested = False
            return False
        self._serving = self._runner()
        self.state = State.SUSPENDED if self.suspended else State.SERVING
        self.session = object()  # last: a stop that sees it must not be undone
        self.bell.ring()
        return True

    def end(self) -> None:
        """The run has ended: whoever waits for it goes on."""
        self._shutdown_requested = False
        self.announced = False
        self.session = self._serving = None
        if self.state in (State.SERVING, State.SUSPENDED):
            self.state = State.READY
        self.bell.ring()

    def announce(self) -> None:
        """The run accepts, and its subscribers know."""
        self.announced = True
        self.bell.ring()

    def move(self, state: State) -> None:
        """Change the state, tell the accept loop and all who wait."""
        self.state = state
        self.wake()
        self.bell.ring()

    def suspend(self, suspended: bool) -> None:
        """Stop or go on accepting; before ``serve_forever`` it is remembered."""
        self.suspended = suspended
        if self.state in (State.SERVING, State.SUSPENDED):
            self.move(State.SUSPENDED if suspended else State.SERVING)

    def close(self) -> None:
        """The listener is gone, for good."""
        self.move(State.STOPPED)
        self._wakeup = None

    def serving_here(self) -> bool:
        """True where the accept loop runs, and in what it calls."""
        return self._serving == self._runner()

    def serving_elsewhere(self) -> bool:
        """True while another thread runs the accept loop."""
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
