"""Where a request runs: one mix-in a file, strangers to one another.

They use the documented hooks of a server alone, so that they also work on the standard library's.
"""

import os

from everserve.concurrency.fibers import FiberMixIn
from everserve.concurrency.pool import ThreadPoolMixIn
from everserve.concurrency.threads import ThreadingMixIn

__all__ = ["FiberMixIn", "ThreadPoolMixIn", "ThreadingMixIn"]

if hasattr(os, "fork"):
    from everserve.concurrency.forks import ForkingMixIn as ForkingMixIn

    __all__ += ["ForkingMixIn"]
