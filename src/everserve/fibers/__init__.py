"""Cooperative fibers: blocking code that waits without holding a thread.

A server with fibers runs each handler in a fiber; these names are for use inside of handlers. Handlers
of every other strategy may use them too: where no hub runs, they wait in the thread.
"""

from everserve.errors import FiberTimeout, HubError
from everserve.fibers.connecting import create_connection
from everserve.fibers.engines import current
from everserve.fibers.exits import FiberExit
from everserve.fibers.locks import Condition, Lock, RLock
from everserve.fibers.offloading import offload
from everserve.fibers.spawning import spawn
from everserve.fibers.sync import Event, Queue, Semaphore, sleep
from everserve.fibers.timeouts import Timeout

__all__ = [
    "Condition",
    "Event",
    "FiberExit",
    "FiberTimeout",
    "HubError",
    "Lock",
    "Queue",
    "RLock",
    "Semaphore",
    "Timeout",
    "create_connection",
    "current",
    "offload",
    "sleep",
    "spawn",
]
