"""A descriptor that wakes its waiter: from any thread, from a signal handler, or by a signal.

The accept loop waits on it in addition to its listener, so that it need not poll.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from everserve.sockets.attaching import woken_to_attach

# Not by names of ``os`` or ``socket``, which programs and tests replace (eventlet, mocks).
try:
    from posix import close, getpid, pipe, read, set_blocking, write
except ImportError:  # another system
    from os import close, getpid, pipe, read, set_blocking, write

__all__ = ["Wakeup"]


class Wakeup:
    """Wakes a selector. ``wake`` takes no lock and may run anywhere; only the waiter calls the rest.

    The descriptors close with the last reference. A thread that is about to call ``wake`` holds one, so
    it can never write to a descriptor that was closed and opened again for another purpose.
    """

    def __init__(self) -> None:
        # A pipe: set_wakeup_fd() writes single bytes, which an eventfd does not take.
        self._reader = self._writer = -1
        self._reader, self._writer = pipe()
        set_blocking(self._reader, False)
        set_blocking(self._writer, False)
        self._owner = getpid()

    @property
    def is_own(self) -> bool:
        """False in a forked child: there it wakes the parent."""
        return self._owner == getpid()

    def fileno(self) -> int:
        """The descriptor to wait on: readable after ``wake``, until ``clear``."""
        return self._reader

    def wake(self) -> None:
        """Make the descriptor readable. Never blocks, never raises for being full."""
        writer = self._writer
        if writer < 0:  # the collector has finalised this before what calls it
            return
        try:
            write(writer, b"\0")
        except BlockingIOError:
            pass  # full: the waiter is woken already

    def clear(self) -> None:
        """Consume the wake-ups so far."""
        try:
            while len(read(self._reader, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    @contextmanager
    def woken_by_signals(self) -> Iterator[None]:
        """In the main thread, make every signal that has a handler wake the waiter during the block.

        Without it, a signal just before the wait would be handled only after the wait. Does nothing in
        other threads, which get no signals, and if the program has set another wake-up descriptor.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        if before != -1:
            signal.set_wakeup_fd(before)
        try:
            with woken_to_attach():
                yield
        finally:
            if before == -1:
                signal.set_wakeup_fd(-1)

    def __del__(self) -> None:
        reader, writer, self._reader, self._writer = self._reader, self._writer, -1, -1
        if reader >= 0:
            close(reader)
            close(writer)
