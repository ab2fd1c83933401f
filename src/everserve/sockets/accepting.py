"""The meaning of a failed accept(2) or recvfrom(2), and how long to wait after it.

It decides what the accept loop does next: go on at once, wait until the system has recovered, or end.
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Callable
from time import monotonic

__all__ = ["BackOff", "Verdict", "classify"]


class Verdict(enum.Enum):
    """What to do after an accept error."""

    RETRY = "it concerned one connection: accept the next"
    BACK_OFF = "the system is exhausted: wait, then accept again"
    FATAL = "the listener itself is unusable: end"


# accept(2) of Linux: it also returns errors of the new connection; treat them like EAGAIN.
_FATAL = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EFAULT})
# EOPNOTSUPP is one of these, but a socket that cannot listen has it each time: wait between attempts.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EOPNOTSUPP})


def classify(error: OSError) -> Verdict:
    """Sort an error of accept(2), or of an overridden ``get_request``.

    Errors whose ``errno`` is not the operating system's (``ssl.SSLError`` has its own numbers, a
    ``TimeoutError`` may have none) concern the one connection that raised them.
    """
    if error.errno is None or not _is_of_the_system(error):
        return Verdict.RETRY
    if error.errno in _EXHAUSTED:
        return Verdict.BACK_OFF
    if error.errno in _FATAL:
        return Verdict.FATAL
    return Verdict.RETRY


def _is_of_the_system(error: OSError) -> bool:
    return type(error).__module__ == "builtins"


class BackOff:
    """The clock of a listener that cannot accept: ``first`` seconds, doubling up to ``longest``.

    5 ms to 1 s are the values of Go's ``net/http``. It uses no sockets; ``now`` may be
    replaced by a test. ``delay`` is 0.0 while accepts go well.
    """

    first = 0.005
    longest = 1.0
    report_every = 1.0

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self.delay = 0.0
        self._until = 0.0
        self._reported = float("-inf")
        self.failures = 0

    def fail(self) -> float | None:
        """Note a failure. Returns the delay in seconds if it should be reported, else ``None``."""
        now = self._now()
        self.delay = min(self.delay * 2 or self.first, self.longest)
        self._until = now + self.delay
        self.failures += 1
        if now - self._reported < self.report_every:
            return None
        self._reported = now
        return self.delay

    def reported(self) -> int:
        """The failures since the last call."""
        failures, self.failures = self.failures, 0
        return failures

    def succeed(self) -> None:
        """Note a successful accept: the next failure starts again with ``first``."""
        self.delay = 0.0

    def remaining(self) -> float:
        """Seconds until the next attempt; 0.0 if one may be made now."""
        if self.delay == 0.0:
            return 0.0
        return max(0.0, self._until - self._now())
