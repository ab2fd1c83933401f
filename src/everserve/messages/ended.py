"""What a message handler has in place of its conversation once that has ended.

The conversation refers to its handler, and the handler to this: neither keeps the other alive.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["ENDED"]


class _Outbox:
    is_closed: Final = True


class _EndedConversation:
    """It has no key, joins no channel, and sends nothing."""

    parked: Final = False
    key: Final = None
    outbox: Final = _Outbox()

    def push(self, data: bytes) -> bool:
        """Drop ``data``."""
        return False

    def disconnect(self) -> None:
        """Nothing is left to be disconnected."""


ENDED: Any = _EndedConversation()
