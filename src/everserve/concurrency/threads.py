"""``ThreadingMixIn``: a thread for each request, without bound."""

from __future__ import annotations

import threading
from typing import Any

from everserve.concurrency.requestthread import RequestThreadMixIn

__all__ = ["ThreadingMixIn"]


class ThreadingMixIn(RequestThreadMixIn):
    """Handle each request in a new thread.

    ``daemon_threads`` (default ``False``): the interpreter may exit while threads run.
    ``block_on_close`` (default ``True``): ``server_close`` waits for those that are no daemons.
    """

    daemon_threads: bool = False
    block_on_close: bool = True
    _threads: dict[threading.Thread, None] | None = None

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread that runs ``process_request_thread``.

        Raises ``RuntimeError`` where the system has no thread left; the request is then closed.
        """
        if self._threads is None:
            self._threads = {}
        thread = _RequestThread(
            target=self.process_request_thread,
            args=(request, client_address),
            daemon=self.daemon_threads,
        )
        thread.run_among(self._threads)

    def server_close(self) -> None:
        """Close the server, then wait for the threads (but not for the caller's own)."""
        super().server_close()
        if self.block_on_close:
            for thread in tuple(self._threads or ()):
                if not thread.daemon and thread is not threading.current_thread():
                    thread.join()


class _RequestThread(threading.Thread):
    """A thread that takes itself out of the running ones: O(1), however many there are."""

    def run_among(self, running: dict[threading.Thread, None]) -> None:
        self._others = running
        running[self] = None
        try:
            self.start()
        except BaseException:
            running.pop(self, None)
            raise

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._others.pop(self, None)
