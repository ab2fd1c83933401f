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
        self._before = [life.announcements for life in lives]
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
        """Start, and return when every server accepts. Raises what prevented it.

        What a server raises after that, be it at once, is for `join_and_raise`.
        """
        self.start()
        for life, before in zip(self._lives, self._before, strict=True):
            life.notifier.wait_until(partial(self._is_over, life, before))
        if not all(map(self._was_up, self._lives, self._before)):
            self._raise()

    def _is_over(self, life: LifeCycle, before: int) -> bool:
        return self._ended or self._was_up(life, before)

    @staticmethod
    def _was_up(life: LifeCycle, before: int) -> bool:
        return life.announcements > before

    def join_and_raise(self, grace: float) -> None:
        """Wait for the end (a bounded time: the handler of a serial server may never return)."""
        self.join(grace + LAST_WAIT)
        self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
