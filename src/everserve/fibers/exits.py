"""How a fiber ends before its time, and how an engine that is missing says so.

Both engines raise these, so they stand below either.
"""

from everserve.errors import EverserveError


class FiberExit(BaseException):
    """Raised inside a fiber that is killed; ends it quietly after its `finally` blocks."""


class FiberTimeout(EverserveError, TimeoutError):
    """The time of a `Timeout` block has passed; `.timeout` is that block."""

    timeout: object = None


class HubError(EverserveError, RuntimeError):
    """The engine was used where it cannot work; the message says where it can."""


class EngineUnavailableError(EverserveError, ImportError):
    """EVERSERVE_ENGINE names an engine that does not exist or was not built."""
