# cython: binding=False, annotation_typing=False
"""Passes events to the subscribers of a server, and to the log.

Every part of a server emits through the one emitter of that server; what concerns a connection, through
the order of that connection. One source for both engines: ``_emitter`` is this file, compiled, with the
types of ``_emitter.pxd``.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from everserve.escaping import mark_traceback
from everserve.events import Failed, Finished, Moved, Refused, ServerEvent, Subscriber
from everserve.fibers.log import concerns_program, logger

__all__ = ["Emitter", "EventOrder"]

logger.logger.addFilter(mark_traceback)


class Emitter:
    """Emits events. ``subscribers`` is empty if there are none: one test on the hot paths.

    ``name`` is the name of the server, which each event gets.
    """

    def __init__(self) -> None:
        self.name = ""
        self.subscribers: tuple[Subscriber, ...] = ()

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call ``subscriber(event)`` for every event. Returns a function that unsubscribes it."""
        self.subscribers = (*self.subscribers, subscriber)
        ended = False

        def unsubscribe() -> None:
            nonlocal ended
            if not ended:
                ended = True
                left = list(self.subscribers)
                left.remove(subscriber)
                self.subscribers = tuple(left)

        return unsubscribe

    def emit(self, event: ServerEvent) -> None:
        """Pass ``event`` to all subscribers. An error of a subscriber is logged and not raised."""
        self._name(event)
        self.announce(event)

    def announce(self, event: ServerEvent) -> None:
        """Emit an event that has the name of the server already."""
        for subscriber in self.subscribers:
            try:
                subscriber(event)
            except BaseException as error:
                if concerns_program(error):
                    raise
                logger.exception("subscriber %r failed at %s", subscriber, event)

    def log(self, event: ServerEvent) -> None:
        """Log an event that an operator must see, and emit it."""
        self.write(event, event.level)
        self.emit(event)

    def write(
        self, event: ServerEvent, level: int, *, exc_info: BaseException | None = None
    ) -> None:
        """Log an event, and do not emit it."""
        self._name(event)
        logger.log(level, "%s", event, extra={"event": event}, exc_info=exc_info)

    def _name(self, event: ServerEvent) -> None:
        object.__setattr__(event, "server", self.name)  # it is frozen for its readers


_ENDS = (Refused, Finished, Failed, Moved)


class EventOrder:
    """The events of one connection: in the order of ``emit``, none after the end.

    Several threads emit them: the one that handles the request, that of the deadlines, the accept loop.
    One of them at a time calls the subscribers. The others leave their events to it and do not wait, as
    a subscriber may take its time, or be called by the thread that emits.
    """

    __slots__ = ("_emitting", "_ended", "_events")

    def __init__(self) -> None:
        self._events: deque[ServerEvent] = deque()
        self._emitting = threading.Lock()
        self._ended = False

    def emit(self, emitter: Emitter, event: ServerEvent) -> None:
        """Pass ``event`` to the subscribers of ``emitter``, after those that came before it."""
        self._events.append(event)
        while self._events and self._emitting.acquire(blocking=False):
            try:
                while self._events:
                    self._emit_next(emitter)
            finally:
                self._emitting.release()

    def _emit_next(self, emitter: Emitter) -> None:
        event = self._events.popleft()
        if not self._ended:
            self._ended = isinstance(event, _ENDS)
            emitter.emit(event)
