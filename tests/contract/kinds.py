"""The two tables of the contract: the strategies and the transports.

A new strategy is one more row in ``STRATEGIES``, and the whole suite runs over it.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.clients import LIMIT, reset
from tests.contract import tasks

from everserve.combos import server_class
from everserve.fibers import offload
from everserve.handlers.datagram import DatagramRequestHandler
from everserve.handlers.stream import StreamRequestHandler

FORKS_AMONG_THREADS = "ignore:This process .* is multi-threaded:DeprecationWarning"


def call(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


@dataclass(frozen=True)
class Strategy:
    """A strategy.

    ``concurrent``: it runs several requests at a time. ``in_processes``: changes by a handler stay in
    its process. ``wait``: how a handler calls a blocking function without blocking the others.
    ``thread_hook``: ``process_request_thread`` is called. ``awaits``: the handlers are coroutines.
    ``title``: the name in the results, of a strategy that is there twice. ``takes_executor``: it has
    the option ``executor``.
    """

    name: str
    title: str = ""
    concurrent: bool = True
    in_processes: bool = False
    thread_hook: bool = False
    wait: Callable[..., Any] = call
    awaits: bool = False
    marks: tuple[Any, ...] = ()
    takes_executor: bool = False


STRATEGIES = [
    Strategy("serial", concurrent=False),
    Strategy("threads", thread_hook=True),
    Strategy("pool", thread_hook=True, takes_executor=True),
    Strategy("fibers", thread_hook=True, wait=offload, takes_executor=True),
    Strategy(
        "asyncio", title="asyncio-fibers", thread_hook=True, wait=offload, takes_executor=True
    ),
    Strategy("asyncio", thread_hook=True, wait=tasks.offload, awaits=True),
    Strategy("forks", in_processes=True, marks=(pytest.mark.filterwarnings(FORKS_AMONG_THREADS),)),
]


@dataclass(frozen=True)
class Transport:
    """A transport. ``host`` is ``None`` for a Unix socket."""

    name: str
    scheme: str
    host: str | None
    is_stream: bool

    def address(self, folder: Path) -> Any:
        return str(folder / "server") if self.host is None else (self.host, 0)

    @property
    def handler(self) -> type:
        return StreamRequestHandler if self.is_stream else DatagramRequestHandler


TRANSPORTS = [
    Transport("tcp4", "tcp", "127.0.0.1", True),
    Transport("tcp6", "tcp", "::1", True),
    Transport("udp4", "udp", "127.0.0.1", False),
    Transport("udp6", "udp", "::1", False),
    Transport("unix", "unix", None, True),
    Transport("unixgram", "unixgram", None, False),
]


def make_handler(strategy: Strategy, transport: Transport, handle: Callable[[Any], object]) -> type:
    """A handler class for both, whose instances call ``handle(handler)``."""
    if strategy.awaits and transport.is_stream:
        return tasks.stream_handler(handle)
    if strategy.awaits:
        return tasks.datagram_handler(handle)
    return type("Handler", (transport.handler,), {"handle": handle})


def make_server_class(strategy: Strategy, transport: Transport, **attributes: Any) -> Any:
    """The ready-made class for both, with attributes and hooks of a test's own."""
    base = server_class(strategy.name, transport.scheme)
    return type(f"{base.__name__}UnderTest", (base,), attributes)


class Client:
    """One client, of a stream or of datagrams; a message is a line."""

    def __init__(self, server: Any, transport: Transport, folder: Path, number: int) -> None:
        kind = socket.SOCK_STREAM if transport.is_stream else socket.SOCK_DGRAM
        self.socket = socket.socket(server.socket.family, kind)
        self.socket.settimeout(LIMIT)
        try:
            if not transport.is_stream:
                own = str(folder / f"client-{number}")
                self.socket.bind(own if transport.host is None else (transport.host, 0))
            self.socket.connect(server.server_address)
        except BaseException:
            self.socket.close()
            raise
        self._file = self.socket.makefile("rb") if transport.is_stream else None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> Any:
        return self.socket.getsockname()

    def send(self, line: bytes) -> None:
        self.socket.sendall(line)

    def offer(self, line: bytes) -> None:
        """Send to a server that may have closed the connection already."""
        try:
            self.send(line)
        except ConnectionError:
            pass

    def receive(self) -> bytes:
        """The next line, or ``b""`` when the server has ended the connection."""
        if self._file is None:
            return self.socket.recv(65536)
        return self._file.readline()

    def ask(self, line: bytes) -> bytes:
        self.send(line)
        return self.receive()

    def end(self) -> None:
        """Wait until the server has closed the connection; a datagram has none."""
        if self._file is not None:
            assert self.receive() == b""

    def close(self) -> None:
        self._hang_up()
        self.socket.close()

    def reset(self) -> None:
        """Go away without a word of farewell."""
        self._hang_up()
        reset(self.socket)

    def _hang_up(self) -> None:
        """A forked handler has a copy of this end, too, so that closing alone would not do."""
        if self._file is not None:
            self._file.close()
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)


class Gate:
    """Holds handlers, in whatever process, until a test lets one after the other go on."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self._entered, self._enter = os.pipe()
        self._go, self._open = os.pipe()

    def hold(self) -> None:
        """For handlers."""
        os.write(self._enter, b"x")
        self._strategy.wait(os.read, self._go, 1)

    def wait_entered(self, count: int = 1) -> None:
        for _ in range(count):
            assert select.select([self._entered], [], [], LIMIT)[0]
            os.read(self._entered, 1)

    def open(self, count: int = 1) -> None:
        os.write(self._open, b"x" * count)

    def close(self) -> None:
        for descriptor in (self._entered, self._enter, self._go, self._open):
            os.close(descriptor)


class Record:
    """Notes, taken in whatever process, in their order."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._own = os.getpid()

    def note(self, what: str) -> None:
        os.write(self._writer, f"{os.getpid() == self._own:d} {what}\n".encode())

    def read(self) -> list[tuple[bool, str]]:
        """Each note, and whether it was taken in this process."""
        try:
            lines = os.read(self._reader, 65536).decode().splitlines()
        except BlockingIOError:
            return []
        return [(line[0] == "1", line[2:]) for line in lines]

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)
