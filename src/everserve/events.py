"""What happened: one frozen object for each arrow of the flow.

A server emits them to its subscribers (``server.subscribe(callable)``); logs and metrics are only
subscribers. The order for one connection is ``Accepted``, then either ``Refused``, or ``Opened`` and
at the end exactly one of ``Finished``, ``Failed`` and ``Moved``. One that has come from another worker
begins with ``Arrived`` instead. ``DeadlineMissed``, ``Shed`` and ``Stayed`` come before the end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from everserve.escaping import describe, escaped

__all__ = [
    "Accepted",
    "Arrived",
    "BackedOff",
    "DeadlineMissed",
    "Draining",
    "Dropped",
    "Failed",
    "Finished",
    "Moved",
    "Opened",
    "Refused",
    "RepliesWithheld",
    "ServerEvent",
    "Serving",
    "SessionOverflowed",
    "Shed",
    "Stalled",
    "Stayed",
    "Stopped",
    "Subscriber",
    "Truncated",
    "WorkerLost",
]


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """The base of all events.

    ``level`` is the level of its log line. ``logged`` is true if the server itself logs the event,
    because an operator must see it even without a subscriber. ``server`` is the name of the server
    that emitted it, such as ``Upper on tcp://127.0.0.1:9999``. ``worker`` is the number of the process,
    where workers serve. Two events are equal whatever their servers.
    """

    server: str = field(default="", init=False, compare=False, repr=False)
    worker: int | None = field(default=None, init=False, compare=False, repr=False)

    level: ClassVar[int] = logging.DEBUG
    logged: ClassVar[bool] = False


Subscriber: TypeAlias = Callable[[ServerEvent], object]


@dataclass(frozen=True, slots=True)
class Serving(ServerEvent):
    """``serve_forever`` has begun to accept. ``address`` is the bound ``server_address``."""

    address: Any
    level: ClassVar[int] = logging.INFO

    def __str__(self) -> str:
        return f"serving on {self.address!r}"


@dataclass(frozen=True, slots=True)
class Accepted(ServerEvent):
    """The kernel handed a connection, or a datagram, to the server."""

    connection: int
    peer: Any

    def __str__(self) -> str:
        return f"accepted #{self.connection} from {self.peer!r}"


@dataclass(frozen=True, slots=True)
class Refused(ServerEvent):
    """A request was refused before its handler ran. ``reason`` is one word, for counting.

    ``error`` is the exception that caused the refusal, if there was one.
    """

    connection: int
    peer: Any
    reason: str
    error: BaseException | None = None
    level: ClassVar[int] = logging.INFO

    def __str__(self) -> str:
        why = f" ({escaped(str(self.error))})" if self.error is not None else ""
        return f"refused #{self.connection} from {self.peer!r}: {self.reason}{why}"


@dataclass(frozen=True, slots=True)
class Shed(ServerEvent):
    """An idle connection was cut to make room for a new one (``overload = "shed-idle"``)."""

    connection: int
    peer: Any
    level: ClassVar[int] = logging.INFO

    def __str__(self) -> str:
        return f"cut idle #{self.connection} from {self.peer!r} to make room"


@dataclass(frozen=True, slots=True)
class DeadlineMissed(ServerEvent):
    """A connection missed the deadline ``deadline`` (``"idle_timeout"``, ...), and was cut.

    ``is_cut`` is false where nothing could be cut: a datagram has no connection, and a program may
    have closed the socket and gone on with a duplicate of its own.
    """

    connection: int
    peer: Any
    deadline: str
    is_cut: bool = True
    level: ClassVar[int] = logging.INFO

    def __str__(self) -> str:
        what = "cut" if self.is_cut else "late, and not cut:"
        return f"{what} #{self.connection} from {self.peer!r}: {self.deadline}"


@dataclass(frozen=True, slots=True)
class Opened(ServerEvent):
    """The handler begins, in the thread, process or fiber where it runs."""

    connection: int
    peer: Any

    def __str__(self) -> str:
        return f"opened #{self.connection} from {self.peer!r}"


@dataclass(frozen=True, slots=True)
class Finished(ServerEvent):
    """The request ended without an error, ``seconds`` after it was accepted, and was closed."""

    connection: int
    peer: Any
    seconds: float

    def __str__(self) -> str:
        return f"finished #{self.connection} from {self.peer!r} after {self.seconds:.3f} s"


@dataclass(frozen=True, slots=True)
class Failed(ServerEvent):
    """The request ended with ``error``. ``peer_gone`` is true if the peer disconnected.

    ``handle_error`` writes the log line of a failure, so that overriding it replaces that line.
    """

    connection: int
    peer: Any
    error: BaseException
    peer_gone: bool
    level: ClassVar[int] = logging.ERROR
    logged: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"failed #{self.connection} from {self.peer!r}: {describe(self.error)}"


@dataclass(frozen=True, slots=True)
class Moved(ServerEvent):
    """The connection goes on in another worker, ``seconds`` after it was accepted.

    This worker has closed its copy of the socket. ``Arrived`` is the other's event.
    """

    connection: int
    peer: Any
    seconds: float

    def __str__(self) -> str:
        return f"moved #{self.connection} from {self.peer!r} after {self.seconds:.3f} s"


@dataclass(frozen=True, slots=True)
class Arrived(ServerEvent):
    """A connection has come from another worker: in place of ``Accepted`` and ``Opened``.

    For ``pause`` seconds no worker has read from it.
    """

    connection: int
    peer: Any
    pause: float

    def __str__(self) -> str:
        pause = f"{self.pause * 1000:.0f} ms"
        return f"took over #{self.connection} from {self.peer!r} after a pause of {pause}"


@dataclass(frozen=True, slots=True)
class Stayed(ServerEvent):
    """A connection whose handler has ``handover`` does not move: it drains here.

    ``reason`` is one word, for counting: ``"state"`` (it cannot be pickled, or restored), ``"tls"``,
    ``"strategy"`` (it has its own thread or process), ``"busy"`` (until the grace was over),
    ``"handler"`` (the new code has no ``handover`` there), ``"worker"`` (no worker has taken it).
    """

    connection: int
    peer: Any
    reason: str
    level: ClassVar[int] = logging.INFO

    def __str__(self) -> str:
        return f"does not move #{self.connection} from {self.peer!r}: {self.reason}"


@dataclass(frozen=True, slots=True)
class BackedOff(ServerEvent):
    """The system is out of descriptors or memory: the server accepts nothing for ``delay`` seconds.

    Emitted at most once a second; ``failures`` counts the failed attempts since the last event.
    """

    error: OSError
    delay: float
    failures: int
    level: ClassVar[int] = logging.WARNING
    logged: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"cannot accept, waiting {self.delay * 1000:.0f} ms: {self.error}"


@dataclass(frozen=True, slots=True)
class Truncated(ServerEvent):
    """A datagram was longer than ``max_packet_size`` (``size`` bytes): its end is lost.

    Emitted at most once a second, for one that was admitted; ``count`` are those since the last event.
    """

    peer: Any
    size: int
    count: int = 1
    level: ClassVar[int] = logging.WARNING
    logged: ClassVar[bool] = True

    def __str__(self) -> str:
        count = f"; {self.count} since the last report" if self.count > 1 else ""
        return f"datagram from {self.peer!r} cut to max_packet_size = {self.size} bytes{count}"


@dataclass(frozen=True, slots=True)
class Dropped(ServerEvent):
    """The kernel has dropped datagrams: the buffer of the socket was full, as the handlers are slow.

    Emitted at most once a second, while others still come; ``count`` are those since the last event.
    ``server.refusals["receive_buffer"]`` has all of them.
    """

    count: int
    level: ClassVar[int] = logging.WARNING
    logged: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"{self.count} datagrams dropped: the receive buffer was full"


@dataclass(frozen=True, slots=True)
class SessionOverflowed(ServerEvent):
    """Datagrams were dropped: more than ``peer_queue`` waited for the handler of a session.

    Emitted at most once a second; ``peer`` sent the last of them, ``count`` are those since the last
    event.
    """

    peer: Any
    count: int
    level: ClassVar[int] = logging.WARNING
    logged: ClassVar[bool] = True

    def __str__(self) -> str:
        return (
            f"dropped {self.count} datagrams, the last of the session of {self.peer!r}: peer_queue"
        )


@dataclass(frozen=True, slots=True)
class RepliesWithheld(ServerEvent):
    """Replies were not sent, as they were more than ``reply_budget`` allows: the peer is not validated.

    Emitted at most once a second; ``peer`` would have got the last of them, ``count`` are those since
    the last event.
    """

    peer: Any
    count: int
    level: ClassVar[int] = logging.WARNING
    logged: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"withheld {self.count} replies, the last to {self.peer!r}: reply_budget"


@dataclass(frozen=True, slots=True)
class Stalled(ServerEvent):
    """A fiber has held the loop for more than ``threshold`` seconds; ``stack`` is its stack.

    Where it waits for a lock of ``threading``, the first line of ``stack`` names it and who holds it.

    Emitted at most once a minute for one place in the code. No other fiber runs meanwhile.
    """

    fiber: str
    threshold: float
    stack: str
    level: ClassVar[int] = logging.WARNING
    logged: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"{self.fiber} has held the loop for {self.threshold:g} s:\n{self.stack}"


@dataclass(frozen=True, slots=True)
class WorkerLost(ServerEvent):
    """A worker of ``executor`` was lost, or could not be had, and ``error`` says how.

    Emitted for each message that was lost with it. ``again``: the message runs again; else its
    connection ends, with a ``LostWorkerError``.
    """

    executor: str
    error: BaseException
    again: bool
    level: ClassVar[int] = logging.WARNING
    logged: ClassVar[bool] = True

    def __str__(self) -> str:
        then = "its message runs again" if self.again else "the message is lost"
        return f"{self.executor}: {describe(self.error)}: {then}"


@dataclass(frozen=True, slots=True)
class Draining(ServerEvent):
    """A stop has begun: requests in progress have ``grace`` seconds to end."""

    grace: float
    level: ClassVar[int] = logging.INFO

    def __str__(self) -> str:
        return f"draining, at most {self.grace:g} s"


@dataclass(frozen=True, slots=True)
class Stopped(ServerEvent):
    """The stop is complete. ``report`` is the ``StopReport`` that ``stop()`` returns."""

    report: Any
    level: ClassVar[int] = logging.INFO

    def __str__(self) -> str:
        return f"stopped: {self.report}"
