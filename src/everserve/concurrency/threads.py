"""A thread for each request, without bound."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

from everserve.concurrency.strategy import Strategy, StrategyParts

__all__ = ["ThreadStrategy"]


class ThreadStrategy(Strategy):
    """Runs each request in a new thread.

    ``running`` has the threads that run, daemons included.
    """

    name: ClassVar[str] = "threads"

    def __init__(self, parts: StrategyParts) -> None:
        super().__init__(parts)
        self.running: dict[threading.Thread, None] = {}

    def start(self, hooks: Any, request: Any, client_address: Any) -> None:
        """Start the thread. Raises ``RuntimeError`` if the system has none left."""
        thread = _RequestThread(
            target=hooks.process_request_thread,
            args=(request, client_address),
            daemon=self._settings.read().daemon_threads,
        )
        thread.run_among(self.running)

    def close(self, *, wait: bool) -> None:
        """Wait for the non-daemon threads, except the caller's own."""
        if wait:
            for thread in tuple(self.running):
                if not thread.daemon and thread is not threading.current_thread():
                    thread.join()


class _RequestThread(threading.Thread):
    """A thread that removes itself from the running ones, in O(1)."""

    def run_among(self, running: dict[threading.Thread, None]) -> None:
        self._others = running
        running[self] = None
        try:
            self.start()
        except BaseException:
            running.pop(self, None)
            raise

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._others.pop(self, None)
