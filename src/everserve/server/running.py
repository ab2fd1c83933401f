"""Serve in a background thread, for ``with server.running()``."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from everserve.server.stopping import AFTERMATH

if TYPE_CHECKING:
    from everserve.server.base import BaseServer

__all__ = ["ServingThread"]


class ServingThread(threading.Thread):
    """Runs ``serve_forever`` and keeps what it raised for the thread that started it."""

    def __init__(self, server: BaseServer, poll_interval: float) -> None:
        super().__init__(name=f"{type(server).__name__} {server.server_address!r}", daemon=True)
        self._server = server
        self._poll_interval = poll_interval
        self._error: BaseException | None = None
        self._ended = False

    def run(self) -> None:
        try:
            self._server.serve_forever(self._poll_interval)
        except BaseException as error:
            self._error = error
        finally:
            self._ended = True
            self._server._life.bell.ring()

    def start_serving(self) -> None:
        """Start, and return when the server accepts. Raises what hindered it."""
        life = self._server._life
        self.start()
        life.bell.wait_until(lambda: life.announced or self._ended)
        self._raise()

    def join_and_raise(self, grace: float) -> None:
        """Wait for the end (a bounded time: the handler of a serial server may never return)."""
        self.join(grace + AFTERMATH)
        self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
