"""Where the connections of a pool wait between messages: one thread watches all of them.

A worker parks a connection here; when something comes, the thread passes it to a worker again.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from everserve.concurrency.strategy import Departure
from everserve.fibers.log import logger
from everserve.sockets.genuine import RealSocket
from everserve.sockets.wakeup import Wakeup

__all__ = ["ThreadParking"]

_MOMENT = 10
"""Milliseconds for which a thread that no one needs waits with a connection."""

_BATCH = 256
"""Connections that one wait finds: as many as the event loop of the fibers."""


class ThreadParking:
    """Watches parked connections with epoll. ``run(conversation)`` passes one on; it must not wait.

    ``is_needed()``: true if a task waits for a thread, so that none should ``linger``.

    The thread starts with the first connection, and ends with ``close()``. ``draining``: see
    ``Parking``. All methods may be called from any thread. Without epoll it takes no connection.
    """

    def __init__(
        self, run: Callable[[Any], object], is_needed: Callable[[], bool] = lambda: True
    ) -> None:
        self.draining = False
        self.departure: Departure | None = None
        self._run = run
        self._is_needed = is_needed
        self._conversations: dict[int, Any] = {}
        self._lock = threading.RLock()  # the collector may close it, in the thread that has it
        self._thread: threading.Thread | None = None
        self._epoll: Any = None
        self._wakeup: Wakeup | None = None
        self._closed = False

    def __len__(self) -> int:
        """How many connections are parked."""
        return len(self._conversations)

    @property
    def closed(self) -> bool:
        """True once it watches nothing any more."""
        return self._closed

    def takes(self, request: Any) -> bool:
        """True for a plain socket; TLS, and what counts bytes, keep their thread."""
        return type(request) is RealSocket and hasattr(select, "epoll") and not self._closed

    def linger(self, request: Any) -> bool:
        """Wait a moment in this thread, unless another connection needs it; true if something came.

        A peer that answers at once is served without a change of threads, which costs more than that.
        """
        if self.draining or self._closed or self._is_needed():
            return False
        return self.has_news(request, _MOMENT)

    def has_news(self, request: Any, milliseconds: int = 0) -> bool:
        """True if something has come within that time."""
        poller = select.poll()
        poller.register(request.fileno(), select.POLLIN)
        return bool(poller.poll(milliseconds))

    def park(self, conversation: Any) -> None:
        """Have it run when something comes. Raises ``OSError`` if it cannot be watched."""
        descriptor = conversation.request.fileno()
        if descriptor < 0:  # the program has closed it
            self._run(conversation)
            return
        self._begin()
        self._conversations[descriptor] = conversation  # first: it may be readable at once
        try:
            self._watch(descriptor)
        except ValueError:  # closed meanwhile
            self._resume(descriptor)
        except BaseException:
            if self._conversations.pop(descriptor, None) is not None:
                raise
        self._look_again(conversation, descriptor)

    def _look_again(self, conversation: Any, descriptor: int) -> None:
        """Do what ``drain``, or a departure, may have looked for before the conversation was here."""
        departure = self.departure
        if departure is not None and departure.keeps(conversation) and not self._closed:
            if departure.is_next(conversation) and self.claim(conversation):
                departure.take(conversation)
        elif self._closed or (self.draining and not conversation.fresh):
            self._resume(descriptor)

    def resume(self, conversation: Any) -> None:
        """Have a conversation run that was claimed, or waits for something else than its peer."""
        self._run(conversation)

    def drain(self) -> None:
        """Have all of them run now, but those that are to move: they find nothing, and end."""
        self.draining = True
        for descriptor, conversation in tuple(self._conversations.items()):
            if not self.keeps(conversation):
                self._resume(descriptor)

    # -- moving to another process ---------------------------------------------------------------

    def keeps(self, conversation: Any) -> bool:
        """True for a conversation that is to move."""
        return self.departure is not None and self.departure.keeps(conversation)

    def claim(self, conversation: Any) -> bool:
        """Forget a conversation that waits; false if it runs."""
        descriptor = conversation.request.fileno()
        if self._conversations.get(descriptor) is not conversation:
            return False
        return self._conversations.pop(descriptor, None) is not None

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call it here: a conversation that was claimed is in no other thread."""
        function(*arguments)

    def forget(self, conversation: Any) -> None:
        """Have the kernel watch the descriptor no more: closing a copy of it does not suffice."""
        with suppress(OSError, ValueError):
            self._epoll.unregister(conversation.request.fileno())

    def close(self) -> None:
        """Watch nothing any more."""
        self._closed = True
        self.departure = None
        self.drain()
        with self._lock:
            if self._wakeup is not None:
                self._wakeup.wake()

    def _watch(self, descriptor: int) -> None:
        mask = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
        try:
            self._epoll.modify(descriptor, mask)
        except FileNotFoundError:
            self._epoll.register(descriptor, mask)

    def _resume(self, descriptor: int) -> None:
        conversation = self._conversations.pop(descriptor, None)
        if conversation is not None:
            self._run(conversation)

    def _begin(self) -> None:
        """Start the thread, once. Raises ``OSError`` if the system has none left."""
        if self._is_running():
            return
        with self._lock:
            if self._is_running():
                return
            self._epoll, self._wakeup = select.epoll(), Wakeup()
            self._epoll.register(self._wakeup.fileno(), select.EPOLLIN)
            thread = threading.Thread(target=self._loop, name="everserve-parking", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                self._epoll.close()
                raise OSError(str(error)) from error
            self._thread = thread

    def _is_running(self) -> bool:
        return self._thread is not None

    def _loop(self) -> None:
        assert self._wakeup is not None
        try:
            while not self._closed:
                for descriptor, _ in self._epoll.poll(maxevents=_BATCH):
                    try:
                        self._resume(descriptor)
                    except Exception:
                        logger.exception("a connection that was parked cannot be resumed")
        finally:
            self._epoll.close()
