"""A selector that runs a hub of fibers while it waits: the accept loop uses it under fibers."""

from __future__ import annotations

import selectors
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from everserve.fibers.engines import Hub

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

__all__ = ["HubSelector"]


class HubSelector(selectors.BaseSelector):
    """Waits for descriptors to become readable, and runs the hub's fibers meanwhile."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._keys: dict[FileDescriptorLike, selectors.SelectorKey] = {}
        self._ready: list[tuple[selectors.SelectorKey, int]] = []

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: Any = None
    ) -> selectors.SelectorKey:
        """Wait for ``fileobj`` too, until it is unregistered."""
        descriptor = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = selectors.SelectorKey(fileobj, descriptor, events, data)
        self._keys[fileobj] = key
        self.hub.add_reader(descriptor, partial(self._note_ready, key, events))
        return key

    def _note_ready(self, key: selectors.SelectorKey, events: int) -> None:
        self._ready.append((key, events))

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        """Wait for ``fileobj`` no more."""
        key = self._keys.pop(fileobj)
        self.hub.remove_reader(key.fd)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Run the fibers until a descriptor is readable, or for ``timeout`` seconds; return those."""
        self._ready.clear()
        self.hub.run(timeout)
        return self._ready

    def turn(self, timeout: float) -> None:
        """Run the fibers that become ready, for ``timeout`` seconds at most, or until woken."""
        self.hub.turn(timeout)

    def wake(self) -> None:
        """End the wait of ``turn``. For any thread."""
        self.hub.wake()

    def close_hub(self) -> None:
        """Kill the fibers that are left, and close the hub."""
        self.hub.close()

    def close(self) -> None:
        """Wait for nothing any more. The hub is the caller's."""
        for fileobj in tuple(self._keys):
            self.unregister(fileobj)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        """The registered descriptors."""
        return self._keys
