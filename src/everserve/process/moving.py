"""Connections on their way from a worker that stops to those that serve.

The supervisor makes the channels, one from each old worker to each new one. The old one offers
connections (``Offer``, with their descriptors); the new one makes their handlers, and says which it
has (``Answer``); only then the old one gives them up (``Decision``), and the new one goes on with them.
So a connection has one owner at any time. If the new worker dies before the decision, the old one has
it yet, and serves it until another worker accepts, or its grace is over; if the old one dies, the new
one goes on with all that it has said to have.
"""

from __future__ import annotations

import logging
import os
import random
import select
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

from everserve.lifecycle.arrival import Arrival
from everserve.process.channel import Channel, Closed
from everserve.server.arrivals import Arrivals, NotMovable
from everserve.server.departure import Departing, Departure, Parcel
from everserve.server.group import ServerGroup
from everserve.sockets.wakeup import Wakeup

__all__ = ["Mover", "Reception", "Way"]

_BATCH = 16
"""Connections of an offer; each has a descriptor, of which a message may carry 253 (SCM_MAX_FD).

With 16 the longest pause of one in 5,000 is half of that with 32 (``make fleet``).
"""

_WINDOW = 2 * _BATCH
"""Connections that may be on their way to one worker: no one reads from them meanwhile."""

_MOST = 4 * _WINDOW
"""Those that may be on their way from one worker."""

_LARGEST = 1 << 20
"""Bytes of an offer, from which on no further connection is added to it."""

_PATIENCE = 1.0
"""Seconds that a worker may take to read a message, before the channel is tried again."""

_AGAIN = 0.05
"""Seconds after which a message is sent again that a worker did not take."""

_LAST = 1.0
"""Seconds that the last connections have to be given up, when the servers have stopped."""

logger = logging.getLogger("everserve")


@dataclass(frozen=True, slots=True)
class Offer:
    """Of the old worker: connections, whose descriptors come along, as ``(number, place, data)``."""

    parcels: tuple[tuple[int, str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Of the new worker: these it has; those it refuses, with the reasons."""

    taken: tuple[int, ...]
    refused: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """Of the old worker: go on with these, with what was pushed meanwhile; forget those."""

    given: tuple[tuple[int, bytes], ...] = ()
    kept: tuple[int, ...] = ()


class Way:
    """To one new worker, which has ``load`` connections. *Ownership*: it owns the channel.

    ``offered``: what was offered to it, and is not decided, by number.
    """

    def __init__(self, channel: Channel, load: int = 0) -> None:
        self.channel = channel
        self.load = load
        self.offered: dict[int, Parcel] = {}
        self.taken: list[int] = []  # of those, what it has, and was not told yet
        self.is_closed = False  # the worker takes no more

    @property
    def room(self) -> int:
        """How many more may be offered to it."""
        return 0 if self.is_closed else max(0, _WINDOW - len(self.offered))


class Mover:
    """Has the connections of ``group`` move over ``ways``, which it owns, in a thread of its own.

    ``seconds``: after that no more move, and those on their way stay.
    """

    def __init__(self, group: ServerGroup[Any], ways: Sequence[Way], seconds: float) -> None:
        self._ways: list[Way] = []
        self._new = deque(random.sample(ways, len(ways)))  # not all begin with the same
        self._ready: deque[Parcel] = deque()
        self._wakeup = Wakeup()
        self._began = monotonic()
        self._end = self._began + seconds
        self._number = 0
        self._poll = select.poll()
        self._poll.register(self._wakeup, select.POLLIN)
        self._is_over = self._has_ended = False
        self.counts = Departing()
        self._departures: Sequence[Departure] = group.depart(self.counts, self._note_ready)
        self._thread = threading.Thread(target=self._run, name="everserve-moving", daemon=True)
        self._thread.start()

    def add(self, way: Way) -> None:
        """Have connections move to one more worker. From any thread."""
        self._new.append(way)
        self._wakeup.wake()

    def hurry(self, seconds: float) -> None:
        """End after so many seconds, if that is earlier."""
        self._end = min(self._end, monotonic() + seconds)
        self._wakeup.wake()

    def finish(self) -> None:
        """The servers have stopped: end, and log how it went."""
        self._is_over = True
        self._wakeup.wake()
        self._thread.join(_LAST)
        counts = self.counts
        stayed = "".join(
            f", {number} stayed: {reason}" for reason, number in counts.stayed.most_common()
        )
        if counts.moved or stayed:
            seconds = monotonic() - self._began
            pause = 1000 * counts.longest
            text = "worker %d: %d connections moved in %.2f s, longest pause %.0f ms%s"
            logger.info(text, os.getpid(), counts.moved, seconds, pause, stayed)

    def _note_ready(self, parcels: Sequence[Parcel]) -> None:
        """From the thread in which connections are claimed."""
        self._ready.extend(parcels)
        if self._has_ended:
            self._stay_ready()
        else:
            self._wakeup.wake()

    # -- in the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._is_over and monotonic() < self._end:
                self._open()
                for way in self._ways:
                    self._give(way)
                self._offer()
                self._ask()
                self._wait()
        except Exception:
            logger.exception("connections move no more")
        finally:
            self._stay()

    def _open(self) -> None:
        while self._new:
            way = self._new.popleft()
            self._ways.append(way)
            self._poll.register(way.channel, select.POLLIN)

    def _wait(self) -> None:
        left = max(0.0, self._end - monotonic())
        if self._ready or any(way.taken for way in self._ways):
            left = min(left, _AGAIN)  # a worker does not read
        for descriptor, _ in self._poll.poll(1000 * left + 1):
            if descriptor == self._wakeup.fileno():
                self._wakeup.clear()
                continue
            way = next((w for w in self._ways if w.channel.fileno() == descriptor), None)
            if way is not None:
                self._read(way)

    def _ask(self) -> None:
        """Ask for as many connections as there is room for."""
        room = min(sum(way.room for way in self._ways), _MOST) - len(self._ready)
        share = -(-room // len(self._departures))
        for departure in self._departures:
            departure.want(share)

    def _offer(self) -> None:
        while self._ready and (open_ways := [way for way in self._ways if way.room]):
            share = -(-len(self._ready) // len(open_ways))
            if not self._offer_to(min(open_ways, key=lambda way: way.load), share):
                return
        if all(way.is_closed for way in self._ways):
            self._put_back()

    def _put_back(self) -> None:
        """No worker takes any now: serve those that are ready here, until one does."""
        while self._ready:
            self._ready.popleft().put_back()

    def _offer_to(self, way: Way, share: int) -> bool:
        most = min(_BATCH, way.room, share)
        batch: dict[int, Parcel] = {}
        size = 0
        while self._ready and len(batch) < most and size < _LARGEST:
            parcel = self._ready.popleft()
            if parcel.is_closed:  # by the program
                parcel.stay("busy")
                continue
            self._number += 1
            batch[self._number] = parcel
            size += len(parcel.data)
        if not batch:
            return True
        offer = Offer(tuple((n, p.departure.place, p.data) for n, p in batch.items()))
        sent = way.channel.send(offer, *[parcel.descriptor for parcel in batch.values()])
        if sent:
            way.offered.update(batch)
            way.load += len(batch)
        else:
            self._ready.extendleft(reversed(batch.values()))
        return sent

    def _read(self, way: Way) -> None:
        try:
            while (received := way.channel.receive()) is not None:
                self._hear(way, received[0])
        except Closed:
            self._lose(way)

    def _hear(self, way: Way, answer: Answer) -> None:
        for number, reason in answer.refused:
            parcel = way.offered.pop(number)
            if reason == "worker":
                way.is_closed = True
                self._ready.appendleft(parcel)
            else:
                parcel.stay(reason)
        way.taken.extend(answer.taken)
        self._give(way)

    def _give(self, way: Way) -> None:
        """Give up what the other worker has; if it cannot be told, they are this one's yet."""
        parcels = {number: way.offered[number] for number in way.taken}
        sealed = {number: parcel.seal() for number, parcel in parcels.items()}
        if not parcels:
            return
        if not way.channel.send(Decision(given=tuple(sealed.items())), wait=_PATIENCE):
            for number, parcel in parcels.items():
                parcel.unseal(sealed[number])
            return
        way.taken.clear()
        for number in parcels:
            del way.offered[number]
        for departure in self._departures:
            departure.gone([p for p in parcels.values() if p.departure is departure])

    def _lose(self, way: Way) -> None:
        """A new worker has ended: what was offered to it is offered to another one."""
        self._poll.unregister(way.channel)
        self._ways.remove(way)
        way.channel.close()
        self._ready.extendleft(way.offered.values())

    def _stay(self) -> None:
        """Have all that have not moved stay, and drain."""
        self._open()
        for way in self._ways:
            if way.offered and not way.channel.send(
                Decision(kept=tuple(way.offered)), wait=_PATIENCE
            ):
                _cut(way.offered.values())
        for departure in self._departures:
            departure.end(self._reason())
        for way in self._ways:
            self._ready.extend(way.offered.values())
            way.channel.close()
        self._has_ended = True
        self._stay_ready()

    def _stay_ready(self) -> None:
        with suppress(IndexError):
            while True:
                self._ready.popleft().stay(self._reason())

    def _reason(self) -> str:
        """Why what is left has not moved."""
        return "worker" if all(way.is_closed for way in self._ways) else "busy"


def _cut(parcels: Iterable[Parcel]) -> None:
    """End connections of which a worker that does not read may believe to have them."""
    for parcel in parcels:
        parcel.conversation.connection.cut()


class Reception:
    """Takes the connections that come over ``channel``, which it owns, in a thread of its own.

    It ends with the process at the other end, or when that has no more.
    """

    def __init__(self, group: ServerGroup[Any], channel: Channel) -> None:
        self._group = group
        self._channel = channel
        self._here: dict[int, tuple[Arrivals, Arrival]] = {}  # not decided yet
        self._changed = threading.Condition()
        self._refuses = False
        self.is_over = False
        threading.Thread(target=self._run, name="everserve-reception", daemon=True).start()

    def refuse(self, seconds: float) -> None:
        """Take no more, and wait at most so long until what was taken is decided: then it is here."""
        with self._changed:
            self._refuses = True
            self._changed.wait_for(lambda: not self._here, seconds)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        try:
            while True:
                poll.poll()
                while (received := self._channel.receive()) is not None:
                    self._hear(*received)
        except Closed:
            self._admit(dict.fromkeys(self._here, b""))
        except Exception:
            logger.exception("connections arrive no more")
            self._forget(tuple(self._here))
        finally:
            self._channel.close()
            self.is_over = True

    def _hear(self, message: Offer | Decision, descriptors: list[int]) -> None:
        if isinstance(message, Offer):
            with self._changed:
                answer = self._take(message, descriptors)
            self._channel.send(answer, wait=_PATIENCE)
        else:
            self._forget(message.kept)
            self._admit(dict(message.given))

    def _take(self, offer: Offer, descriptors: list[int]) -> Answer:
        taken: list[int] = []
        # Where this process has no descriptors left, the kernel has left the last ones out.
        refused = [(number, "worker") for number, _, _ in offer.parcels[len(descriptors) :]]
        for (number, place, data), descriptor in zip(offer.parcels, descriptors, strict=False):
            try:
                if self._refuses:
                    raise NotMovable("worker")
                self._here[number] = self._group.unpack(place, data, descriptor)
                taken.append(number)
            except NotMovable as error:
                os.close(descriptor)
                refused.append((number, error.reason))
                if error.__cause__ is not None:
                    logger.warning("a connection does not move: %r", error.__cause__)
        return Answer(tuple(taken), tuple(refused))

    def _admit(self, given: dict[int, bytes]) -> None:
        by_queue: dict[Arrivals, list[Arrival]] = {}
        for number, late in given.items():
            arrivals, arrival = self._here[number]
            arrival.late = late
            by_queue.setdefault(arrivals, []).append(arrival)
        for arrivals, here in by_queue.items():
            arrivals.put(here)
        self._drop(given)

    def _forget(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number in self._here:
                self._here[number][1].close()
        self._drop(numbers)

    def _drop(self, numbers: Iterable[int]) -> None:
        with self._changed:
            for number in numbers:
                self._here.pop(number, None)
            self._changed.notify_all()
