"""Who is told what happened: the subscribers of a server, and the log.

Every part of a server emits through the one emitter of that server.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from everserve.events import Event, Subscriber

__all__ = ["Emitter"]

logger = logging.getLogger("everserve")


class Emitter:
    """Passes events on. ``subscribers`` is empty where no one listens: one test on the hot paths."""

    def __init__(self) -> None:
        self.subscribers: tuple[Subscriber, ...] = ()

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call ``subscriber(event)`` for every event; returns a function that ends that."""
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

    def emit(self, event: Event) -> None:
        """Pass ``event`` on. What a subscriber raises is logged and goes no further."""
        for subscriber in self.subscribers:
            try:
                subscriber(event)
            except Exception:
                logger.exception("subscriber %r failed at %s", subscriber, event)

    def log(self, event: Event) -> None:
        """Write the line of an event that an operator must see, and pass it on."""
        logger.log(event.level, "%s", event, extra={"event": event})
        self.emit(event)
