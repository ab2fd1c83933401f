"""The interface of a strategy: where requests run, how a caller waits there, and how requests are cut.

The accept loop, the flow and a stop call it; the mix-ins name it. A strategy gets the parts of a server
that it needs, but no server: each call passes the hooks, also those of the standard library's servers.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

from everserve.admission.control import AdmissionControl
from everserve.executors.execution import Execution
from everserve.fibers import threadwaits
from everserve.fibers.engines import DatagramRun, Records
from everserve.lifecycle.connection import Connection
from everserve.lifecycle.connections import ConnectionTable
from everserve.lifecycle.emitter import Emitter
from everserve.lifecycle.progress import Progress
from everserve.lifecycle.state import LifeCycle
from everserve.settings import SettingsReader
from everserve.sockets.counted import CountedSocket
from everserve.sockets.tls import TLS, TLSSocket

__all__ = [
    "Condition",
    "Conversation",
    "Departure",
    "EarlySteps",
    "MovableDeadline",
    "Order",
    "Parking",
    "RequestHooks",
    "RunningLoop",
    "StopTimes",
    "Strategy",
    "StrategyParts",
]


class RequestHooks(Protocol):
    """The hooks of a server that a strategy calls: the documented ones of ``socketserver``."""

    RequestHandlerClass: Any

    def finish_request(self, request: Any, client_address: Any) -> object: ...
    def handle_error(self, request: Any, client_address: Any) -> object: ...
    def shutdown_request(self, request: Any) -> object: ...
    def close_request(self, request: Any) -> object: ...


class RunningLoop(Protocol):
    """The accept loop, as a strategy sees it while the loop runs."""

    def watch(self, descriptor: int) -> None: ...
    def unwatch(self, descriptor: int) -> None: ...
    def leave_to_parent(self) -> None: ...


class Order(NamedTuple):
    """A child's order for its parent: ``stop(grace)``, or ``shutdown()`` if ``grace`` is ``None``."""

    grace: float | None


class StopTimes(Protocol):
    """The times of a stop in progress (``time.monotonic``): they may be moved forward."""

    deadline: float  # the end of the grace

    @property
    def ends(self) -> float:
        """After this time the stop waits for nothing."""

    @property
    def is_of_request(self) -> bool:
        """True if a request of the server has asked for it: its reply comes after the stop."""


@dataclass(frozen=True, slots=True)
class StrategyParts:
    """The parts of one server that its strategy may use."""

    settings: SettingsReader
    life: LifeCycle
    connections: ConnectionTable
    control: AdmissionControl
    emitter: Emitter
    progress: Progress


class Departure(Protocol):
    """What has connections move to another process: see ``server.departure``."""

    def keeps(self, conversation: Any) -> bool:
        """True for one that is to move: while the server drains it is parked, and served, as before."""

    def is_next(self, conversation: Any) -> bool:
        """True to have a conversation that has just been parked ``claimed``."""

    def take(self, conversation: Any) -> None:
        """Have a conversation that was claimed move."""


class Conversation(Protocol):
    """A message handler and its connection, as what parks and ends it sees them."""

    handler: Any
    connection: Connection
    parking: Any
    request: Any
    context: Any
    parked: bool
    fresh: bool
    outbox: Any

    @property
    def client_address(self) -> Any: ...
    @property
    def is_between_messages(self) -> bool:
        """True unless the first part of a message has come, and not yet all of it."""

    def move_away(self) -> None:
        """It goes on in another process: no one finds it here any more."""

    def resume(self) -> None:
        """Go on. It ends, or is parked again, before this returns."""

    def park(self) -> None:
        """Wait for the next message, where nothing runs it."""

    def abandon(self) -> None:
        """End a wait for the executor: the connection was cut."""


class Parking(Protocol):
    """Where connections wait between messages. ``draining``: those that have had one end instead.

    ``departure`` is set while connections move to another process.
    """

    draining: bool
    departure: Departure | None

    def takes(self, request: Any) -> bool:
        """True if a connection with this socket may wait here."""

    def keeps(self, conversation: Any) -> bool:
        """True for a conversation that is to move: it does not end while the server drains."""

    def park(self, conversation: Any) -> None:
        """Have a thread or a fiber call ``conversation.resume()`` when something has come."""

    def claim(self, conversation: Any) -> bool:
        """Wait for nothing any more on behalf of a conversation; false if it runs, or soon does.

        Where ``call`` calls.
        """

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call ``function`` where conversations may be claimed and taken back. From any thread."""

    def resume(self, conversation: Any) -> None:
        """Have a conversation run that was claimed. Where ``call`` calls."""

    def forget(self, conversation: Any) -> None:
        """Forget a conversation that was claimed, before its copy of the socket is closed."""


Condition: TypeAlias = Callable[[], bool]
MovableDeadline: TypeAlias = Callable[[], float | None]


class AcceptMany(Protocol):
    """Accepts at most ``limit`` waiting connections: pairs of socket and address."""

    def __call__(self, fd: int, limit: int, /) -> list[tuple[Any, Any]]: ...


class EarlySteps(Protocol):
    """The context of steps that are taken before the request runs: a ``RequestContext``."""

    def begin_early(self) -> None: ...
    def advance(self, steps: Any, /) -> int: ...
    def end_early(self) -> None: ...
    def leave(self) -> None: ...


BeginEarly: TypeAlias = Callable[[Any, Any, Any], tuple[EarlySteps, Any] | None]


EndRefused: TypeAlias = Callable[[Any, Any, Any], bool]


def _end_no_refused(hooks: Any, request: Any, context: Any) -> bool:
    return False


def _begin_none_early(hooks: Any, request: Any, client_address: Any) -> None:
    return None


Finish: TypeAlias = Callable[[Any, Any, Any], object]


def _finish_by_hook(hooks: Any, request: Any, client_address: Any) -> None:
    hooks.finish_request(request, client_address)


class Strategy:
    """One request after the other, in the serving thread; the base of all strategies.

    ``name`` is the value of ``concurrency``. ``accept_many(descriptor, limit)``, if it is not ``None``,
    accepts a batch of connections as sockets of the strategy's kind. ``attends``: ``attend`` is not
    empty; ``is_bounded``: ``is_full`` may be true; ``is_here``: requests run in this process.
    ``is_carried``: ``carry`` is more than a call; ``awaits``: handlers may be coroutines.
    ``handles_batches``: ``handle_batch`` takes a batch of datagrams; ``runs_at_once``: a request has
    ended when ``start`` returns; ``takes_turns``: requests run in turns with the loop, so that
    ``follow`` tells when. ``handshakes_hold_places``: a handshake in progress may be why the server is
    full. ``in_threads``: a waiting request holds a thread; ``parking``: where a connection waits
    between messages, if it needs none. ``takes_executor``: messages may be handled elsewhere meanwhile;
    ``execution``: there, once a run has begun.

    ``finish(hooks, request, client_address)`` calls ``finish_request``, after what has to come
    before it; ``begin_early`` of the same arguments returns the steps that a strategy may take before
    it runs the request, with their context, if there are any. ``end_refused(hooks, request, context)``
    ends a request that these have refused, or returns false. The flow replaces the three.
    """

    name: ClassVar[str] = "serial"
    accept_many: AcceptMany | None = None
    finish: Finish = staticmethod(_finish_by_hook)
    begin_early: BeginEarly = staticmethod(_begin_none_early)
    end_refused: EndRefused = staticmethod(_end_no_refused)
    attends: ClassVar[bool] = False
    is_bounded: ClassVar[bool] = False
    is_here: ClassVar[bool] = True
    is_carried: ClassVar[bool] = False
    awaits: ClassVar[bool] = False
    handles_batches: ClassVar[bool] = True
    runs_at_once: ClassVar[bool] = True
    takes_turns: bool = False
    handshakes_hold_places: bool = True
    in_threads: bool = True
    parking: Parking | None = None
    takes_executor: ClassVar[bool] = False
    execution: Execution | None = None

    def __init__(self, parts: StrategyParts) -> None:
        self._settings = parts.settings
        self._life = parts.life
        self._connections = parts.connections
        self._loop: RunningLoop | None = None

    # -- where a request runs ------------------------------------------------------------------

    @staticmethod
    def here() -> int:
        """The number of the current thread or fiber: two with the same number never run at once."""
        return threading.get_ident()

    def start(self, hooks: Any, request: Any, client_address: Any) -> None:
        """Start the request. If this raises, it did not start, and the caller owns it again."""
        self.finish(hooks, request, client_address)
        hooks.shutdown_request(request)

    def handle_batch(self, run: DatagramRun) -> None:
        """Handle a batch of datagrams for each of which nothing else is to be done."""
        run.runner = self.here()
        if threadwaits.here.request is not None:
            threadwaits.serve(None)
        self._connections.begin(run)
        try:
            run.handle()
        finally:
            self._connections.end(run)

    def follow(self, function: Callable[[], object]) -> None:
        """Call ``function()`` when all requests that can run now have run, until they wait or end."""
        function()

    def room(self, most: int) -> int:
        """How many of ``most`` requests may come in at once."""
        return most

    def is_full(self) -> bool:
        """True if the next request must wait in the kernel's queue."""
        return False

    def shed_oldest(self, hooks: Any) -> bool:
        """Drop the datagram that has waited longest for a place; false if none waits here."""
        return False

    def wrap_tls(self, tls: TLS, sock: socket.socket) -> TLSSocket:
        """A TLS socket over ``sock``, before its handshake."""
        return tls.wrap(sock, records=Records)

    def count(self, sock: socket.socket) -> CountedSocket:
        """A socket over ``sock`` that counts bytes where the kernel does not."""
        return CountedSocket(sock)

    # -- the accept loop -----------------------------------------------------------------------

    def carry(self, serve: Callable[[], object]) -> None:
        """Call ``serve``, a whole run, on what the run needs below it."""
        serve()

    def open_selector(
        self, selector: selectors.BaseSelector | None
    ) -> selectors.BaseSelector | None:
        """The selector of the loop; ``selector`` is that of another strategy in the same loop."""
        return selector

    def watched(self) -> Mapping[int, Callable[[], object]]:
        """Further descriptors that the loop waits for, with the function to call for a readable one."""
        return {}

    def attach(self, loop: RunningLoop) -> None:
        """Note the loop that checks ``is_full`` before each request, until ``detach``."""
        if self._loop is None:
            self._loop = loop

    def detach(self, loop: RunningLoop) -> None:
        """Note that the loop has ended."""
        if self._loop is loop:
            self._loop = None

    def become_child(self) -> None:
        """Note that this is a child of fork: the parent alone serves."""

    def attend(self) -> None:
        """Do what is due after each turn of the loop."""

    def needs_attention(self) -> bool:
        """True if ``attend`` must be called even while no request arrives."""
        return False

    def linger(self) -> None:
        """Run the requests in progress, if they need the thread of the loop."""

    def hurry(self) -> None:
        """Let ``linger`` cut them at once: the run ends by an exception, which must not wait."""

    def drop(self, hooks: Any) -> None:
        """Close the requests of the run whose handlers have not begun, and never will."""

    def leave(self) -> None:
        """The run is over: end what needs the thread of the loop."""

    # -- the stop ------------------------------------------------------------------------------

    def wait_until(self, condition: Condition, deadline: MovableDeadline = lambda: None) -> bool:
        """Wait for a change of the server's state; false if ``deadline()`` passed before."""
        return self._life.notifier.wait_until(condition, deadline)

    def wait_for_requests(self, quiet: Condition, deadline: MovableDeadline) -> bool:
        """Wait until ``quiet()``; false if ``deadline()`` passed before."""
        return self.wait_until(quiet, deadline)

    def stopping(self, stop: StopTimes) -> None:
        """Note that the current thread or fiber conducts a stop."""

    def relay(self, grace: float | None) -> bool:
        """Pass a ``stop(grace)`` (``None``: a ``shutdown()``) to the process that can do it.

        False if this process can.
        """
        return False

    def take_order(self) -> Order | None:
        """Return an order that another process has relayed to this one, and remove it."""
        return None

    def is_draining(self) -> bool:
        """True if another process has begun to drain the server."""
        return False

    def drain(self) -> None:
        """A stop has begun: end the connections that wait between messages.

        Here those whose message handler waits where it runs, unless half of a message has come.
        """
        for connection in self._connections.view:
            conversation = connection.conversation
            if (
                conversation is not None
                and conversation.parking is None
                and conversation.is_between_messages
            ):
                connection.end_reading()

    def cut(self, hooks: Any, connections: tuple[Connection, ...]) -> None:
        """Shut down those connections, so that their handlers come to an end."""
        for connection in connections:
            connection.cut()

    def close(self, *, wait: bool, deadline: MovableDeadline = lambda: None) -> None:
        """End, as the server is closed; with ``wait``, wait for requests until ``deadline()``."""

    def abandon(self) -> None:
        """The server was dropped: end the threads that wait for work, and refer to the flow no more.

        The last reference calls it, or the collector, in any thread: it waits for nothing.
        """
        self.finish, self.begin_early = _finish_by_hook, _begin_none_early
        self.end_refused = _end_no_refused

    def threads(self) -> tuple[threading.Thread, ...]:
        """The threads that run requests, other than the thread of the loop."""
        return ()
