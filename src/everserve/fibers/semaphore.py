"""`Semaphore`: at most so many at a time. `_semaphore.pyx` is the same, compiled."""

import threading

from everserve.fibers.tickets import Line, Ticket

__all__ = ["Semaphore"]


class Semaphore:
    """At most `value` holders at a time, first come first served. For fibers and for threads."""

    __slots__ = ("_line", "_lock", "_value")

    def __init__(self, value: int = 1) -> None:
        if value < 0:
            raise ValueError(f"a semaphore cannot begin at {value}: give 0 or more")
        self._value = value
        self._lock = threading.Lock()
        self._line = Line()

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take a place, waiting at most `timeout` seconds; False when there was none in time."""
        with self._lock:
            if self._value > 0:
                self._value -= 1
                return True
            if not blocking:
                return False
            ticket = self._line.enter()
        try:
            if ticket.wait(timeout):
                return True
        except BaseException:
            if not self._leave(ticket):
                self.release()
            raise
        return not self._leave(ticket)

    def release(self) -> None:
        """Give a place back."""
        with self._lock:
            if not self._line.call_next():
                self._value += 1

    def _leave(self, ticket: Ticket) -> bool:
        with self._lock:
            return self._line.leave(ticket)

    def __enter__(self) -> bool:
        with self._lock:  # at once, where there is a place: writers of a TLS connection come here
            if self._value > 0:
                self._value -= 1
                return True
        return self.acquire()

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            if not self._line:
                self._value += 1
                return
        self.release()
