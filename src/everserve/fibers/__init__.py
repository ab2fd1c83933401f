"""Cooperative fibers: blocking code that waits without holding a thread.

A server with fibers runs each handler in a fiber; these names are for use inside of handlers.
"""

from everserve.errors import FiberTimeout, HubError
from everserve.fibers.connecting import create_connection
from everserve.fibers.engines import current
from everserve.fibers.exits import FiberExit
from everserve.fibers.lending import lend
from everserve.fibers.offloading import offload
from everserve.fibers.sync import Event, Queue, Semaphore, Timeout, sleep, spawn

__all__ = [
    "Event",
    "FiberExit",
    "FiberTimeout",
    "HubError",
    "Queue",
    "Semaphore",
    "Timeout",
    "create_connection",
    "current",
    "lend",
    "offload",
    "sleep",
    "spawn",
]
