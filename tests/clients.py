"""Clients for the tests: sockets with time limits, and threads that report their result."""

from __future__ import annotations

import functools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

LIMIT = 20.0
"""The time limit of a wait in seconds; a passing test never comes near it."""


class Background(threading.Thread):
    """Runs a function in a thread, which must come to an end."""

    def __init__(self, function: Callable[..., Any], *args: Any, **keywords: Any) -> None:
        super().__init__(daemon=True)
        self._call: Callable[[], Any] = functools.partial(function, *args, **keywords)
        self._value: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:
            self._error = error

    def result(self, limit: float = LIMIT) -> Any:
        """What the function returned; raises what it raised."""
        self.join(limit)
        assert not self.is_alive(), f"still running after {limit} s"
        if self._error is not None:
            raise self._error
        return self._value


def connect(address: Any, *, limit: float = LIMIT) -> socket.socket:
    """A stream connected to ``(host, port)`` or to a Unix path."""
    if isinstance(address, tuple):
        return socket.create_connection(address[:2], limit)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(limit)
    client.connect(address)
    return client


def read_all(client: socket.socket) -> bytes:
    """All until the end of the stream."""
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def ask(address: Any, question: bytes = b"ping", *, limit: float = LIMIT) -> bytes:
    """Connect, send, half-close. Returns the whole answer. Without a question, only read."""
    with connect(address, limit=limit) as client:
        if question:
            client.sendall(question)
            with suppress(OSError):  # a server that does not wait for that may have closed
                client.shutdown(socket.SHUT_WR)
        return read_all(client)


def reset(client: socket.socket) -> None:
    """Close with a reset (RST) instead of an end."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()


@contextmanager
def serving(server: Any, poll_interval: float = 3600.0) -> Iterator[Any]:
    """Serve in the background, with the plain API; the block gets the address."""
    thread = Background(server.serve_forever, poll_interval)
    try:
        yield server.server_address
    finally:
        server.shutdown()
        thread.result()
        server.server_close()
