"""A system that has no threads left, until a test says otherwise."""

from __future__ import annotations

import threading

import pytest


class Exhausted:
    """No thread can be started, but those whose name is in ``spared``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._start = threading.Thread.start
        self._ended = False
        self.spared: set[str] = set()
        self.attempts = 0
        start, exhausted = self._start, self

        def refuse(thread: threading.Thread) -> None:
            if exhausted._ended or thread.name in exhausted.spared:
                start(thread)
            else:
                exhausted.attempts += 1
                raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)

    def end(self) -> None:
        """The system has threads again."""
        self._ended = True
