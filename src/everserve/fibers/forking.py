"""What becomes of hubs in a child of fork: nothing of the parent's is touched.

The hubs of both engines are remembered here when they are made; an epoll is shared with the
parent after fork(2), so the child closes its copy and works on without a hub (see epoll(7)).
"""

import os
import weakref
from typing import Protocol

__all__ = ["remember"]


class Abandonable(Protocol):
    """What can be left to the parent."""

    def abandon(self) -> None: ...


_hubs: "weakref.WeakSet[Abandonable]" = weakref.WeakSet()


def remember(hub: Abandonable) -> None:
    """Have `hub.abandon()` called in every child."""
    _hubs.add(hub)


def _abandon_all() -> None:
    for hub in tuple(_hubs):
        hub.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
