"""Handlers of the contract as coroutines: what they wait for, a task of asyncio awaits.

The tests are written with plain calls. Here each runs in a greenlet beside its task, and a call that
would wait hands its coroutine to the task, as a handler written with ``async def`` would await it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import greenlet

from everserve.handlers.aio import AsyncStreamRequestHandler
from everserve.handlers.datagram import DatagramRequestHandler


def wait(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """In the greenlet of a handler: have its task await ``coroutine``."""
    parent = greenlet.getcurrent().parent
    assert parent is not None
    return parent.switch(coroutine)


def offload(function: Callable[..., Any], *args: Any) -> Any:
    return wait(asyncio.to_thread(function, *args))


async def run(handle: Callable[[Any], object], handler: Any) -> None:
    """Await what ``handle(handler)`` waits for, until it returns."""
    beside = greenlet.greenlet(handle)
    beside.gr_context = None
    asked = beside.switch(handler)
    while not beside.dead:
        try:
            result = await asked
        except BaseException as error:
            asked = beside.throw(error)
        else:
            asked = beside.switch(result)


class File:
    """``rfile`` or ``wfile`` with plain calls."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line

    def readline(self) -> bytes:
        return wait(self._file.readline())

    def read(self, size: int = -1) -> bytes:
        return wait(self._file.read(size))

    def write(self, data: bytes) -> int:
        size = self._file.write(data)
        wait(self._file.drain())
        return size

    def flush(self) -> None:
        wait(self._file.flush())


class Request:
    """The connection with plain calls."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    def recv(self, size: int) -> bytes:
        return wait(self._handler.rfile.read1(size))

    def sendall(self, data: bytes) -> None:
        self._handler.wfile.write(data)
        wait(self._handler.wfile.flush())

    def shutdown(self, how: int) -> None:
        self._handler.request.shutdown(how)

    def fileno(self) -> int:
        return self._handler.request.fileno()

    __class__ = socket.socket  # type: ignore[assignment]


class Beside:
    """A handler of streams with plain calls."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler
        self.rfile, self.wfile = File(handler.rfile), File(handler.wfile)
        self.request = Request(handler)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)


def stream_handler(handle: Callable[[Any], object]) -> type:
    class Handler(AsyncStreamRequestHandler):
        async def handle(self) -> None:
            await run(handle, Beside(self))

    return Handler


def datagram_handler(handle: Callable[[Any], object]) -> type:
    class Handler(DatagramRequestHandler):
        async def handle(self) -> None:
            await run(handle, self)

    return Handler


def message_handler(kind: type) -> type:
    """``kind`` with coroutines for all hooks, each of which waits once before it does what it does."""

    async def after_a_wait(hook: Callable[..., Any], *arguments: Any) -> Any:
        await asyncio.sleep(0)
        return hook(*arguments)

    def awaited(name: str) -> Any:
        async def hook(self: Any, *arguments: Any) -> Any:
            return await after_a_wait(getattr(super(handler, self), name), *arguments)

        return hook

    names = "setup on_connect handle_message on_bad_message on_disconnect finish"
    handler = type(kind.__name__, (kind,), {name: awaited(name) for name in names.split()})
    return handler
