"""How a fiber is made to end.

It stands below both engines, which raise it.
"""

__all__ = ["FiberExit"]


class FiberExit(BaseException):
    """Raised in a fiber that is killed; ends it without a report, after its `finally` blocks."""
