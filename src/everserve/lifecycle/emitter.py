"""Passes events to the subscribers of a server, and to the log.

Every part of a server emits through the one emitter of that server.
"""

from __future__ import annotations

from collections.abc import Callable

from everserve.escaping import mark_traceback
from everserve.events import ServerEvent, Subscriber
from everserve.fibers.log import concerns_program, logger

__all__ = ["Emitter"]

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
        object.__setattr__(event, "server", self.name)  # it is frozen for its readers
        for subscriber in self.subscribers:
            try:
                subscriber(event)
            except BaseException as error:
                if concerns_program(error):
                    raise
                logger.exception("subscriber %r failed at %s", subscriber, event)

    def log(self, event: ServerEvent) -> None:
        """Log an event that an operator must see, and emit it."""
        logger.log(event.level, "%s", event, extra={"event": event})
        self.emit(event)
