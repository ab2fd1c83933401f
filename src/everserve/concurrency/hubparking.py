# cython: binding=False, annotation_typing=False
"""Where connections wait between messages under an event loop: there.

One source for both engines: `_hubparking` is this file, compiled, with the types of `_hubparking.pxd`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from everserve.concurrency.strategy import Departure
from everserve.fibers.engines import FiberSocket

__all__ = ["HubParking"]


class HubParking:
    """Leaves connections to the event loop: one that is readable gets a fiber.

    ``call(function, *arguments)`` calls in the thread of the loop. ``draining``, ``departure``: see
    ``Parking``.
    """

    __slots__ = ("call", "departure", "draining")

    def __init__(self, call: Callable[..., None]) -> None:
        self.draining = False
        self.departure: Departure | None = None
        self.call = call

    def keeps(self, conversation: Any) -> bool:
        """True for a conversation that is to move."""
        return self.departure is not None and self.departure.keeps(conversation)

    def takes(self, request: Any) -> bool:
        """True for a socket of the event loop itself; TLS and what counts bytes keep their fiber."""
        return type(request) is FiberSocket

    def park(self, conversation: Any) -> None:
        """Have a fiber resume it when something comes; at once if something may be there."""
        departure = self.departure
        if departure is not None and departure.keeps(conversation):
            is_over = False
            if departure.is_next(conversation):
                departure.take(conversation)
                return
        else:
            is_over = self.draining and not conversation.fresh
        if is_over or not conversation.request._park(conversation):
            conversation.request._resume_soon(conversation)

    def claim(self, conversation: Any) -> bool:
        """Take it from the event loop; false if it runs."""
        claimed: bool = conversation.request._unpark()
        return claimed

    def resume(self, conversation: Any) -> None:
        """Have a fiber resume it. In a fiber."""
        conversation.request._resume_soon(conversation)

    def forget(self, conversation: Any) -> None:
        """Have the kernel watch the descriptor no more: closing a copy of it does not suffice."""
        conversation.request._mark_duplicated()
