"""A descriptor that wakes whoever waits on it, from any thread or from a signal handler.

The accept loop waits on it beside its listener, so that nothing has to poll.
"""

from __future__ import annotations

import os
import socket

__all__ = ["Wakeup"]


class Wakeup:
    """Wakes a selector. ``wake`` takes no lock and may run anywhere; the rest is the waiter's.

    The descriptors close with the last reference: a thread that is about to call ``wake`` holds one,
    so that it can never write into a descriptor that was closed and given to somebody else.
    """

    def __init__(self) -> None:
        self._reader, self._writer = _eventfd() if hasattr(os, "eventfd") else _pair()

    def fileno(self) -> int:
        """The descriptor to wait on: readable after ``wake``, until ``clear``."""
        return self._reader

    def wake(self) -> None:
        """Make the descriptor readable. Never blocks, never raises for being full."""
        try:
            os.write(self._writer, b"\1\0\0\0\0\0\0\0")
        except BlockingIOError:
            pass  # as awake as can be

    def clear(self) -> None:
        """Take the wake-ups so far as seen."""
        try:
            os.read(self._reader, 4096)
        except BlockingIOError:
            pass

    def __del__(self) -> None:
        for descriptor in {self._reader, self._writer}:
            os.close(descriptor)


def _eventfd() -> tuple[int, int]:
    descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    return descriptor, descriptor


def _pair() -> tuple[int, int]:
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    return reader.detach(), writer.detach()
