"""The queue of messages from threads and signal handlers to the thread that runs the servers."""

from __future__ import annotations

import selectors
from collections import deque
from time import monotonic
from typing import Generic, TypeVar

from everserve.sockets.wakeup import Wakeup

__all__ = ["MessageQueue"]

MessageT = TypeVar("MessageT")


class MessageQueue(Generic[MessageT]):
    """A queue whose reader signals wake too; ``put`` may be called anywhere."""

    def __init__(self) -> None:
        self._messages: deque[MessageT] = deque()
        self._wakeup = Wakeup()

    def put(self, message: MessageT) -> None:
        """Add a message."""
        self._messages.append(message)
        self._wakeup.wake()

    def get(self, deadline: float | None = None) -> MessageT | None:
        """Wait for the next message; ``None`` if ``deadline`` (monotonic) passed before."""
        # Not select(2), which accepts no descriptor above 1,023.
        with self._wakeup.woken_by_signals(), selectors.DefaultSelector() as selector:
            selector.register(self._wakeup, selectors.EVENT_READ)
            while not self._messages:
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    return None
                selector.select(left)
                self._wakeup.clear()
        return self._messages.popleft()
