"""Serve in a background thread, for ``with server.running()``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

from everserve.lifecycle.state import LifeCycle
from everserve.server.stop import LAST_WAIT

__all__ = ["ServingThread"]


class ServingThread(threading.Thread):
    """Calls ``serve``, and keeps what it raised for the thread that started it.

    ``lives`` are the life cycles of the servers that it serves with.
    """

    def __init__(self, serve: Callable[[], object], lives: Sequence[LifeCycle], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._serve = serve
        self._lives = lives
        self._error: BaseException | None = None
        self._ended = False

    def run(self) -> None:
        try:
            self._serve()
        except BaseException as error:
            self._error = error
        finally:
            self._ended = True
            for life in self._lives:
                life.notifier.notify()

    def start_serving(self) -> None:
        """Start, and return when every server accepts. Raises what prevented it."""
        self.start()
        for life in self._lives:
            life.notifier.wait_until(partial(self._is_up, life))
        self._raise()

    def _is_up(self, life: LifeCycle) -> bool:
        return life.announced or self._ended

    def join_and_raise(self, grace: float) -> None:
        """Wait for the end (a bounded time: the handler of a serial server may never return)."""
        self.join(grace + LAST_WAIT)
        self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
