"""A thread for each request, without bound."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar

from everserve.concurrency.strategy import MovableDeadline, Strategy, StrategyParts

__all__ = ["ThreadStrategy"]


class ThreadStrategy(Strategy):
    """Runs each request in a new thread.

    ``running`` has the threads that run, daemons included.
    """

    name: ClassVar[str] = "threads"
    handles_batches: ClassVar[bool] = False
    runs_at_once: ClassVar[bool] = False

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
        thread.run_among(self.running, self._life.notifier.notify)

    def close(self, *, wait: bool, deadline: MovableDeadline = lambda: None) -> None:
        """Wait for the non-daemon threads, except the caller's own, until ``deadline()``."""
        if not wait:
            return
        own = threading.current_thread()
        others = [t for t in tuple(self.running) if not (t.daemon or t is own or _has_gone(t))]
        self.wait_until(lambda: not any(thread in self.running for thread in others), deadline)
        for thread in others:
            if thread not in self.running:
                thread.join()

    def threads(self) -> tuple[threading.Thread, ...]:
        """The threads of the requests, daemons included."""
        return tuple(self.running)


def _has_gone(thread: threading.Thread) -> bool:
    """True for a thread of the process that has forked this one: here it never ends."""
    return thread.ident is not None and not thread.is_alive()


class _RequestThread(threading.Thread):
    """A thread that removes itself from the running ones, in O(1)."""

    def run_among(
        self, running: dict[threading.Thread, None], on_end: Callable[[], object]
    ) -> None:
        self._others = running
        self._on_end = on_end
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
            self._on_end()
