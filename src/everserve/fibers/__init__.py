"""Cooperative fibers: blocking code that waits without holding a thread.

A server with fibers runs each handler in one; these names are for use inside of handlers.
"""

from everserve.errors import FiberTimeout as FiberTimeout
from everserve.errors import HubError as HubError
from everserve.fibers.connecting import create_connection as create_connection
from everserve.fibers.engine import Fiber as Fiber
from everserve.fibers.engine import FiberSocket as FiberSocket
from everserve.fibers.engine import Hub as Hub
from everserve.fibers.engine import accept_many as accept_many
from everserve.fibers.engine import current as current
from everserve.fibers.exits import FiberExit as FiberExit
from everserve.fibers.offload import offload as offload
from everserve.fibers.stalls import watch_stalls as watch_stalls
from everserve.fibers.sync import Event as Event
from everserve.fibers.sync import Queue as Queue
from everserve.fibers.sync import Semaphore as Semaphore
from everserve.fibers.sync import Timeout as Timeout
from everserve.fibers.sync import sleep as sleep
from everserve.fibers.sync import spawn as spawn
