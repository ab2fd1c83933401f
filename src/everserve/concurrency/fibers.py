"""A fiber for each request, all on one event loop of everserve's own."""

from __future__ import annotations

from typing import ClassVar

from everserve.concurrency.hubs import HubStrategy

__all__ = ["FiberStrategy"]


class FiberStrategy(HubStrategy):
    """Runs each request in a fiber, on the thread of the accept loop."""

    name: ClassVar[str] = "fibers"
