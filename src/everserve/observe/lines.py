"""Lines for stdout and stderr, whose reader may be slow, or gone: the server never waits for it.

The command line writes its messages and its log through this.
"""

from __future__ import annotations

import os
import select
import threading
import weakref
from collections import deque

__all__ = ["LineWriter"]

_ATOMIC = 4096
"""Bytes that a pipe takes at once when poll(2) says that it is writable (PIPE_BUF of Linux)."""


class LineWriter:
    """A text stream over a descriptor. ``write`` never waits.

    What the reader does not take at once is kept, up to ``most`` bytes, and a thread writes it. Further
    lines are lost, and counted: ``N lines lost`` stands in their place. *Ownership*: the descriptor is
    the caller's. ``error`` is the last error of the descriptor (a full disk, a reader that is gone).
    """

    def __init__(self, descriptor: int, *, most: int = 1 << 20) -> None:
        self._descriptor = descriptor
        self._most = most
        self.error: OSError | None = None
        self._reset()
        ref = weakref.ref(self)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=lambda: _reset(ref()))

    def _reset(self) -> None:
        """Begin with nothing kept. A forked child does: its parent writes what was kept."""
        self._changed = threading.Condition(threading.RLock())
        self._kept: deque[bytes] = deque()
        self._size = 0
        self._lost = 0
        self._has_thread = False

    def write(self, text: str) -> int:
        """Write ``text``, or keep it. It should end with a line end."""
        data = text.encode("utf-8", "backslashreplace")
        with self._changed:
            if not self._kept:
                data = self._write_now(data)
            if data:
                self._keep(data)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def finish(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for what is kept; false if some of it is left."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._kept, seconds)

    def _write_now(self, data: bytes) -> bytes:
        """Write what the reader takes at once; returns the rest."""
        while data and self._is_writable(0):
            data = data[self._write_some(data) :]
        return data

    def _write_some(self, data: bytes) -> int:
        """The number of bytes that were written; all, if the descriptor fails: they are lost."""
        try:
            written = os.write(self._descriptor, data[:_ATOMIC])
        except BlockingIOError:
            return 0
        except OSError as error:
            self.error = error
            self._lost += 1
            return len(data)
        return written

    def _is_writable(self, milliseconds: int | None) -> bool:
        if not hasattr(select, "poll"):
            return True
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(milliseconds))

    def _keep(self, data: bytes) -> None:
        if self._size + len(data) > self._most:
            self._lost += 1
            return
        self._kept.append(data)
        self._size += len(data)
        if not self._has_thread:
            self._has_thread = True
            threading.Thread(target=self._drain, name="everserve lines", daemon=True).start()

    def _drain(self) -> None:
        """The thread: write what is kept, as the reader takes it."""
        while True:
            self._is_writable(None)
            with self._changed:
                data = self._kept.popleft()
                rest = data[self._write_some(data) :]
                self._size -= len(data) - len(rest)
                if rest:
                    self._kept.appendleft(rest)
                elif not self._kept and self._lost and self.error is None:
                    self._note_lost()
                if not self._kept:
                    self._has_thread = False
                    self._changed.notify_all()
                    return

    def _note_lost(self) -> None:
        note = b"everserve: %d lines lost, as no one read them\n" % self._lost
        self._lost = 0
        self._kept.append(note)
        self._size += len(note)


def _reset(writer: LineWriter | None) -> None:
    if writer is not None:
        writer._reset()
