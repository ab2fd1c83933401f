"""Tools for tests of servers: handlers whose progress a test controls, and a recorder of events."""

from __future__ import annotations

import threading
from typing import Any

from tests.clients import LIMIT

from everserve.events import ServerEvent
from everserve.handlers.base import BaseRequestHandler

LOOPBACK = ("127.0.0.1", 0)


class Echo(BaseRequestHandler):
    """Sends back one message."""

    def handle(self) -> None:
        self.request.sendall(self.request.recv(100))


class Held(BaseRequestHandler):
    """Sends ``ready``, then waits for the peer, or until it is cut; sends ``bye`` if it can."""

    def handle(self) -> None:
        self.request.sendall(b"ready")
        self.request.recv(100)
        self.request.sendall(b"bye")


class Gate:
    """A handler that waits until the test opens the gate, even if the connection ends before."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()

    def __call__(self, request: Any, client_address: Any, server: Any) -> None:
        self.entered.release()
        assert self.opened.wait(LIMIT)


class EventRecorder:
    """A subscriber that records the events, and lets a test wait for them."""

    def __init__(self) -> None:
        self.events: list[ServerEvent] = []
        self._changed = threading.Condition()

    def __call__(self, event: ServerEvent) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait_for(self, kind: type[ServerEvent], count: int = 1) -> list[Any]:
        """Wait until there are ``count`` events of that kind, and return them."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.of(kind)) >= count, LIMIT), self.events
            return self.of(kind)

    def of(self, kind: type[ServerEvent]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.events]
