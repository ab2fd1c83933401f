"""What a message handler has in place of its session once that has ended.

The session has its handler, and the handler this: so neither keeps the other alive, nor the server.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["ENDED"]


class _Outbox:
    is_closed: Final = True


class _EndedSession:
    """It has no key, joins no channel, and sends nothing."""

    parked: Final = False
    key: Final = None
    outbox: Final = _Outbox()

    def push(self, data: bytes) -> bool:
        """Drop ``data``."""
        return False

    def disconnect(self) -> None:
        """Nothing is left to be disconnected."""


ENDED: Any = _EndedSession()
