"""A thread that takes the first steps of many connections, those that wait for the peer.

The strategy of pools uses it, so that a PROXY header or a TLS handshake that does not come holds no
worker. It never blocks on one connection.
"""

from __future__ import annotations

import selectors
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from everserve.concurrency.strategy import EarlySteps
from everserve.fibers.helperthreads import try_to_start
from everserve.fibers.log import logger
from everserve.sockets.wakeup import Wakeup

__all__ = ["Candidate", "EarlyThread"]

_IDLE = 10.0
"""Seconds after which the thread ends that has no connection."""


@dataclass(eq=False)
class Candidate:
    """A connection whose steps are in progress. ``arguments`` are for the caller."""

    request: Any
    context: EarlySteps
    steps: Any
    arguments: tuple[Any, ...]
    awaited: int = field(default=0, init=False)  # the event of the selector


class EarlyThread:
    """Takes the steps of candidates; ``on_done(candidate)`` is called when one waits no more.

    That is after the steps, after a failure, which the context keeps, and where the system cannot wait
    for one more descriptor: the context then goes on where the caller takes the steps. Only ``add``,
    ``drop``, ``close`` and ``len`` are for other threads.
    """

    def __init__(self, on_done: Callable[[Candidate], object]) -> None:
        self._on_done = on_done
        self._lock = threading.RLock()  # the collector may close it, in the thread that has it
        self._present: dict[Candidate, None] = {}  # in the order of their coming
        self._new: deque[Candidate] = deque()
        self._wakeup: Wakeup | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._present)

    def add(self, candidate: Candidate) -> bool:
        """Take the steps of ``candidate``. False if the system has no thread or descriptor left."""
        with self._lock:
            if self._wakeup is None and not self._start():
                return False
            try:
                candidate.context.begin_early()
            except OSError:  # the peer has gone
                return False
            self._present[candidate] = None
            self._new.append(candidate)
            assert self._wakeup is not None
            self._wakeup.wake()
        return True

    def drop(self) -> list[Candidate]:
        """Give up all candidates, and return them."""
        with self._lock:
            dropped, self._present = list(self._present), {}
        for candidate in dropped:
            candidate.context.leave()
        return dropped

    def close(self, *, wait: bool = True) -> None:
        """Have the thread end when there is no candidate left; ``wait`` for that if there is none."""
        with self._lock:
            self._closed = True
            if self._wakeup is not None:
                self._wakeup.wake()
            thread = None if self._present else self._thread
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def _start(self) -> bool:
        try:
            wakeup = Wakeup()
            selector = selectors.DefaultSelector()
        except OSError:
            return False
        selector.register(wakeup, selectors.EVENT_READ)
        self._thread = try_to_start(lambda: self._run(selector, wakeup), name="everserve-early")
        if self._thread is None:
            selector.close()
            return False
        self._wakeup = wakeup
        return True

    # -- in the thread ---------------------------------------------------------------------------

    def _run(self, selector: selectors.BaseSelector, wakeup: Wakeup) -> None:
        try:
            with selector:
                while not self._is_over(self._take_turn(selector, wakeup)):
                    pass
        except Exception:
            logger.exception("the thread of first steps failed; the next connection starts another")
            self._give_up(selector)

    def _give_up(self, selector: selectors.BaseSelector) -> None:
        with self._lock:
            self._wakeup = None
            left = list(self._present)
        for candidate in left:
            self._end(selector, candidate)

    def _is_over(self, idle: bool) -> bool:
        with self._lock:
            over = (idle or self._closed) and not self._present
            if over:
                self._wakeup = None
            return over

    def _take_turn(self, selector: selectors.BaseSelector, wakeup: Wakeup) -> bool:
        """Take the steps for which something has come; true if nothing has, for a while."""
        try:
            ready = selector.select(None if self._present else _IDLE)
        except OSError:  # no memory: the workers are to wait themselves
            for candidate in tuple(self._present):
                self._end(selector, candidate)
            return False
        for key, _ in ready:
            if key.data is not None:
                self._advance(selector, key.data)
        wakeup.clear()
        while self._new:
            self._advance(selector, self._new.popleft())
        return not ready

    def _advance(self, selector: selectors.BaseSelector, candidate: Candidate) -> None:
        try:
            event = candidate.context.advance(candidate.steps) if candidate in self._present else 0
            if event:
                self._await(selector, candidate, event)
                return
        except Exception:
            pass  # no memory to wait with, or it was closed: the worker is to meet that
        self._end(selector, candidate)

    def _await(self, selector: selectors.BaseSelector, candidate: Candidate, event: int) -> None:
        if not candidate.awaited:
            selector.register(candidate.request, event, candidate)
        elif candidate.awaited != event:
            selector.modify(candidate.request, event, candidate)
        candidate.awaited = event

    def _end(self, selector: selectors.BaseSelector, candidate: Candidate) -> None:
        if candidate.awaited:
            with suppress(Exception):  # it was closed meanwhile, or the selector is
                selector.unregister(candidate.request)
        with self._lock:
            if candidate not in self._present:
                return
            del self._present[candidate]
        candidate.context.end_early()
        try:
            self._on_done(candidate)
        except Exception:
            logger.exception("a request could not go on after its first steps")
