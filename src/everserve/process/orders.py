"""What the processes of one server say to each other: the messages of their channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from everserve.events import ServerEvent
from everserve.lifecycle.connection import Connection
from everserve.server.stop import StopReport

__all__ = [
    "Accepting",
    "Adopt",
    "Ask",
    "Beat",
    "Born",
    "Ended",
    "Failed",
    "Fork",
    "Forward",
    "Happened",
    "Move",
    "Order",
    "Ready",
    "Reopen",
    "Reported",
    "Share",
    "Stop",
    "Suspend",
    "Told",
]


@dataclass(frozen=True, slots=True)
class Share:
    """This worker has the share ``index`` of ``of`` of the limits."""

    index: int
    of: int


@dataclass(frozen=True, slots=True)
class Fork:
    """For a template: fork a worker for this place. Its end of the channel comes along.

    ``suspended``: the servers that accept nothing for now.
    """

    place: int
    share: Share
    forwards: bool
    suspended: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Stop:
    """For a worker: stop with ``grace``. For a template: end with its last worker."""

    grace: float = 0.0


@dataclass(frozen=True, slots=True)
class Suspend:
    """For a worker: suspend, or resume, the server ``index``."""

    index: int
    suspended: bool


@dataclass(frozen=True, slots=True)
class Reopen:
    """For a worker: open the log files anew."""


@dataclass(frozen=True, slots=True)
class Forward:
    """For a worker: events are listened to."""


@dataclass(frozen=True, slots=True)
class Ask:
    """For a worker: say what there is. ``number`` is that of the answer."""

    number: int


@dataclass(frozen=True, slots=True)
class Move:
    """For a worker: have connections move over the channel that comes along, when it stops.

    The worker at its other end has ``load`` connections.
    """

    load: int = 0


@dataclass(frozen=True, slots=True)
class Adopt:
    """For a worker: go on with the connections that come over the channel that comes along."""


Order: TypeAlias = Share | Stop | Suspend | Reopen | Forward | Ask | Move | Adopt


@dataclass(frozen=True, slots=True)
class Ready:
    """Of a template: the code is loaded.

    ``moves``: a handler has ``handover``; ``most``: so many workers may serve, and what to say of more.
    """

    moves: bool
    most: tuple[int, str]


@dataclass(frozen=True, slots=True)
class Failed:
    """Of a template: the code cannot be loaded, for the reason in ``text``."""

    text: str


@dataclass(frozen=True, slots=True)
class Born:
    """Of a template: the worker runs. Its pidfd comes along."""

    place: int
    pid: int


@dataclass(frozen=True, slots=True)
class Ended:
    """Of a template: one of its workers has ended, with that status of waitpid(2)."""

    pid: int
    status: int


@dataclass(frozen=True, slots=True)
class Accepting:
    """Of a worker: all of its servers accept."""


@dataclass(frozen=True, slots=True)
class Beat:
    """Of a worker: its accept loop turns. ``memory`` is in bytes."""

    accepted: int
    memory: int
    refusals: tuple[Mapping[str, int], ...]


@dataclass(frozen=True, slots=True)
class Happened:
    """Of a worker: an event of the server ``index``. ``lost`` did not get through before."""

    index: int
    event: ServerEvent
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """Of a worker: its answer, for each server."""

    number: int
    connections: tuple[tuple[Connection, ...], ...]
    refusals: tuple[Mapping[str, int], ...]


@dataclass(frozen=True, slots=True)
class Reported:
    """Of a worker: it has stopped. ``asked`` is false if a handler of its own has stopped it."""

    report: StopReport
    reports: tuple[StopReport | None, ...]
    refusals: tuple[Mapping[str, int], ...]
    asked: bool
    error: str | None = None
