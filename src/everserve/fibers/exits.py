"""How a fiber ends before its time.

Both engines raise it, so it stands below either.
"""

__all__ = ["FiberExit"]


class FiberExit(BaseException):
    """Raised inside a fiber that is killed; ends it quietly after its `finally` blocks."""
