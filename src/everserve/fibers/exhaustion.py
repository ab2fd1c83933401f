"""The system has run out of something while the loop asked it to watch or to wait.

Both loops use this. It ends by itself, so it must cost no more than a pause.
"""

import errno
import time
from typing import Final

from everserve.fibers.log import logger

__all__ = ["EXHAUSTED", "PAUSE", "log_exhaustion"]

EXHAUSTED: Final = frozenset(
    {errno.ENOMEM, errno.ENOSPC, errno.ENOBUFS, errno.EMFILE, errno.ENFILE}
)
"""What epoll_ctl(2), epoll_wait(2) and poll(2) report then. ENOSPC: `fs.epoll.max_user_watches`."""

PAUSE: Final = 0.05  # seconds until it is tried again
_SILENCE: Final = 1.0  # seconds between two lines of the log

_silent_until = 0.0


def log_exhaustion(error: OSError) -> None:
    """Log it, once a second."""
    global _silent_until
    now = time.monotonic()
    if now >= _silent_until:
        _silent_until = now + _SILENCE
        logger.warning("the event loop goes on after a pause of %s s: %s", PAUSE, error)
