"""The departure of a server's connections: those whose handlers have ``handover`` go to other workers.

A worker that stops begins one. It gives away connections that wait between messages, so many at a time
as the worker asks for; until then they are served as before. What cannot move drains.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from everserve.concurrency.strategy import Conversation, Parking, Strategy
from everserve.fibers.log import logger
from everserve.lifecycle.connection import Connection
from everserve.lifecycle.connections import ConnectionTable
from everserve.lifecycle.progress import Progress
from everserve.server.arrivals import NotMovable, slot_of
from everserve.server.flow import Flow
from everserve.server.hooks import Hooks

__all__ = ["Departing", "Departure", "Parcel"]


class Parcel:
    """A connection that is ready to move: nothing runs it, and nothing is sent over it.

    ``descriptor`` is the server's, until ``Departure.gone``; ``data`` is the handler.
    """

    __slots__ = ("conversation", "data", "departure", "descriptor", "packed")

    def __init__(self, departure: Departure, conversation: Conversation, data: bytes) -> None:
        self.departure = departure
        self.conversation = conversation
        self.descriptor: int = conversation.request.fileno()
        self.data = data
        self.packed = monotonic()

    @property
    def is_closed(self) -> bool:
        """True if the program has closed the socket meanwhile."""
        closed: bool = self.conversation.request.fileno() != self.descriptor
        return closed

    def seal(self) -> bytes:
        """What was pushed since it is ready; nothing more is taken."""
        held: bytes = self.conversation.outbox.take_held()
        return held

    def unseal(self, held: bytes) -> None:
        """Undo ``seal``."""
        self.conversation.outbox.hold_again(held)

    def put_back(self) -> None:
        """No process takes it now: it is served here until its turn comes again."""
        self.departure.put_back(self.conversation)

    def stay(self, reason: str) -> None:
        """No process has taken it: it drains here."""
        self.departure.stay(self.conversation, reason)


class Departing:
    """Counts what became of the connections of a process that departs.

    ``longest``: the seconds for which no process has read from one of them, at most.
    """

    def __init__(self) -> None:
        self.moved = 0
        self.longest = 0.0
        self.stayed: Counter[str] = Counter()
        self._explained: set[tuple[type, str]] = set()
        self._lock = threading.Lock()

    def note_moved(self, pause: float) -> None:
        """Count one that has moved."""
        with self._lock:
            self.moved += 1
            self.longest = max(self.longest, pause)

    def note_stayed(self, conversation: Conversation, error: NotMovable) -> None:
        """Count one that stays; log the cause once for each kind of handler."""
        kind = type(conversation.handler)
        with self._lock:
            self.stayed[error.reason] += 1
            is_new = (kind, error.reason) not in self._explained
            self._explained.add((kind, error.reason))
        if is_new and error.__cause__ is not None:
            logger.warning("connections of %s do not move: %r", kind.__name__, error.__cause__)


class Departure:
    """That of one server; ``place`` is what other processes know it by.

    ``on_ready(parcels)`` is called where conversations are claimed; ``want`` says how many more may
    come. A connection that is not ``scheduled`` is claimed when it next waits for a message.
    """

    def __init__(
        self,
        hooks: Hooks,
        *,
        place: str,
        flow: Flow,
        progress: Progress,
        connections: ConnectionTable,
        strategy: Strategy,
        counts: Departing,
        on_ready: Callable[[Sequence[Parcel]], object],
    ) -> None:
        self.place = place
        self._hooks = hooks
        self._flow = flow
        self._progress = progress
        self._connections = connections
        self._strategy = strategy
        self._parking: Parking | None = strategy.parking
        self._counts = counts
        self._on_ready = on_ready
        self._lock = threading.Lock()
        self._wanted = 0
        self._queue: deque[Connection] = deque()
        self._scheduled: set[Connection] = set()
        self._stayed: set[Connection] = set()
        self._flushing: set[Conversation] = set()
        self._claimed: set[Conversation] = set()  # of which there is a parcel
        self._packed: list[Parcel] = []  # not delivered yet
        self._is_over = False

    def begin(self) -> None:
        """From now on they move; before the server drains."""
        if self._parking is not None:
            self._parking.departure = self
        for connection in self._connections.view:
            conversation = connection.conversation
            if conversation is None or slot_of(type(conversation.handler)) is None:
                continue
            if conversation.parking is None:
                self._note_stayed(conversation, NotMovable("tls" if connection.tls else "strategy"))
            else:
                self._scheduled.add(connection)
                self._queue.append(connection)

    def want(self, number: int) -> None:
        """Have so many become ready, those that wait for a message first."""
        if self._parking is not None and number > 0:
            with self._lock:
                self._wanted = number
            self._parking.call(self._collect)

    def end(self, reason: str) -> None:
        """Move no more: what is left stays for that reason, and drains."""
        self._is_over = True
        if self._parking is None:
            return
        self._parking.departure = None
        for connection in self._connections.view:
            conversation = connection.conversation
            if (
                conversation is None
                or conversation.parking is None
                or conversation in self._claimed
            ):
                continue
            if self._would_keep(conversation):
                self._note_stayed(conversation, NotMovable(reason))
        self._strategy.drain()

    # -- for the parking ---------------------------------------------------------------------------

    def keeps(self, conversation: Conversation) -> bool:
        """True for one that is to move, and so does not end while the server drains."""
        return not self._is_over and self._would_keep(conversation)

    def _would_keep(self, conversation: Conversation) -> bool:
        return (
            conversation.connection not in self._stayed
            and slot_of(type(conversation.handler)) is not None
        )

    def is_next(self, conversation: Conversation) -> bool:
        """True to claim a conversation that waits now; else its turn comes."""
        connection = conversation.connection
        if connection in self._scheduled:
            return False
        with self._lock:
            if self._wanted > 0:
                return True
            self._scheduled.add(connection)
            self._queue.append(connection)
            return False

    def take(self, conversation: Conversation) -> None:
        """Pack a conversation that was claimed."""
        self._take(conversation)
        self._deliver()

    def _deliver(self) -> None:
        with self._lock:
            packed, self._packed = self._packed, []
        if packed:
            self._on_ready(packed)

    def _take(self, conversation: Conversation) -> None:
        if self._is_over:
            self._take_back(conversation)
            return
        outbox: Any = conversation.outbox
        self._flushing.add(conversation)
        if not outbox.hold(lambda: self._take_again(conversation)):
            if outbox.is_closed:  # it has failed: it is to see that
                self._flushing.discard(conversation)
                self._stayed.add(conversation.connection)
                self._take_back(conversation)
            return
        self._flushing.discard(conversation)
        self._pack(conversation)

    def _pack(self, conversation: Conversation) -> None:
        slot = slot_of(type(conversation.handler))
        try:
            if slot is None:  # the program has changed it
                raise NotMovable("handler")
            parcel = Parcel(self, conversation, slot.pack(conversation))
        except NotMovable as error:
            self._stay(conversation, error)
            return
        with self._lock:
            self._wanted -= 1
            self._claimed.add(conversation)
            self._packed.append(parcel)

    def _take_again(self, conversation: Conversation) -> None:
        """All is sent. In any thread."""
        if conversation in self._flushing and self._parking is not None:
            self._flushing.discard(conversation)
            self._parking.call(self.take, conversation)

    def _collect(self) -> None:
        parking = self._parking
        assert parking is not None
        while self._wanted > 0 and not self._is_over:
            try:
                connection = self._queue.popleft()
            except IndexError:
                break
            self._scheduled.discard(connection)
            conversation = connection.conversation
            # One that runs now is not scheduled any more: it is claimed when it waits again.
            if (
                conversation is None
                or conversation.request is None
                or not self._would_keep(conversation)
            ):
                continue
            if parking.claim(conversation):
                self._take(conversation)
        self._deliver()

    # -- for the parcels ---------------------------------------------------------------------------

    def gone(self, parcels: Sequence[Parcel]) -> None:
        """Another process goes on with these: close the copies of this one. From any thread."""
        now = monotonic()
        for parcel in parcels:
            self._counts.note_moved(now - parcel.packed)
        if self._parking is not None:
            self._parking.call(self._gone, [parcel.conversation for parcel in parcels])

    def _gone(self, conversations: Sequence[Conversation]) -> None:
        for conversation in conversations:
            self._leave(conversation)

    def _leave(self, conversation: Conversation) -> None:
        assert self._parking is not None
        self._claimed.discard(conversation)
        conversation.move_away()
        self._parking.forget(conversation)
        self._flow.leave_to_other(self._hooks, conversation)

    def put_back(self, conversation: Conversation) -> None:
        """No process takes it now. From any thread."""
        if self._parking is not None:
            self._parking.call(self._put_back, conversation)

    def _put_back(self, conversation: Conversation) -> None:
        self._claimed.discard(conversation)
        self._scheduled.add(conversation.connection)
        self._queue.append(conversation.connection)
        conversation.outbox.release()
        self._take_back(conversation)

    def stay(self, conversation: Conversation, reason: str) -> None:
        """No process has it. From any thread."""
        if self._parking is not None:
            self._parking.call(self._stay, conversation, NotMovable(reason))

    def _stay(self, conversation: Conversation, error: NotMovable) -> None:
        self._claimed.discard(conversation)
        self._note_stayed(conversation, error)
        conversation.outbox.release()
        self._take_back(conversation)

    def _note_stayed(self, conversation: Conversation, error: NotMovable) -> None:
        self._stayed.add(conversation.connection)
        self._counts.note_stayed(conversation, error)
        self._progress.stayed(conversation.connection, error.reason)

    def _take_back(self, conversation: Conversation) -> None:
        assert self._parking is not None
        self._parking.resume(conversation)
