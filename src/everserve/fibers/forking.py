"""What happens to hubs in a child of fork: the child abandons them, and the parent's stay untouched.

The hubs of both engines are registered here when they are made. After fork(2) an epoll is shared with
the parent, so the child closes its copy and goes on without a hub (see epoll(7)).
"""

import os
import weakref
from collections.abc import Callable
from typing import Protocol

__all__ = ["LiveHub", "hubs", "remember"]


class LiveHub(Protocol):
    """A hub, as this module and `finalization` see it."""

    @property
    def closed(self) -> bool: ...
    @property
    def thread_id(self) -> int: ...
    def call_from_thread(self, function: Callable[..., object], *arguments: object) -> None: ...
    def end_round(self) -> None: ...
    def abandon(self) -> None: ...


_hubs: "weakref.WeakSet[LiveHub]" = weakref.WeakSet()


def remember(hub: LiveHub) -> None:
    """Have `hub.abandon()` called in every child."""
    _hubs.add(hub)


def hubs() -> "tuple[LiveHub, ...]":
    """All hubs of the process."""
    return tuple(_hubs)


def _abandon_all() -> None:
    for hub in hubs():
        hub.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
