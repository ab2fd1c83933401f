# cython: binding=False, annotation_typing=False
"""`AsyncReader` and `AsyncWriter`: the `rfile` and `wfile` of a task of asyncio.

They stand above the streams of fibers: the fiber that carries the task reads into the buffer of a
`Reader`, so that TLS, time limits and `max_line` are those of every other stream.
One source for both engines: `_aio` is this file, compiled, with the types of `_aio.pxd`.
"""

from __future__ import annotations

import importlib
import socket
from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Final, Self

from everserve.fibers.sockets import flat_view

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["AsyncReader", "AsyncWriter"]

COMPILED = __name__ == "everserve.streams._aio"

_PREFIX = "_" if COMPILED else ""
Reader: Any = importlib.import_module(f"everserve.streams.{_PREFIX}reader").Reader
FiberSocket: Any = importlib.import_module(f"everserve.fibers.{_PREFIX}sockets").FiberSocket
ready: Any = importlib.import_module(f"everserve.streams.{_PREFIX}ready")
Ready, _NOTHING = ready.Ready, ready.NOTHING

_NOW: Final = int(socket.MSG_DONTWAIT)

HIGH_WATER: Final = 65536
"""Bytes that may wait to be sent before `drain` waits; as in asyncio."""


class Doing:
    """Awaited: `function()` is called in the fiber that carries the task; what it returns or raises."""

    __slots__ = ("_carrier", "_error", "_function", "_result")

    def __init__(self, carrier: Any, function: Callable[[], Any]) -> None:
        self._carrier = carrier
        self._function = function
        self._result: Any = None
        self._error: Exception | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        if not self._carrier.is_own():
            raise RuntimeError("only the task of the handler can do that")
        self._carrier.asked = self._do
        yield self._carrier
        if self._error is not None:
            raise self._error
        return self._result

    def _do(self) -> None:
        try:
            self._result = self._function()
        except Exception as error:
            self._error = error


class Filling:
    """Awaited: more bytes are in the buffer of `reader`, or the result is 0: it is at its end."""

    __slots__ = ("_reader",)

    def __init__(self, reader: AsyncReader) -> None:
        self._reader = reader

    def __await__(self) -> Generator[Any, Any, Any]:
        reader = self._reader
        reader.check_free()
        if reader.error is None:
            if reader.filler is None and reader.carrier.is_own():
                reader.is_filling = True
                reader.carrier.asked = reader.receive
                try:
                    yield reader.carrier
                finally:
                    reader.is_filling = False
            else:
                yield from reader.fill_elsewhere().__await__()
        return reader.take_count()


class AsyncReader:
    """The reading half, as `rfile`, with coroutines. One task reads at a time.

    A read that is cancelled (`asyncio.timeout`) loses nothing: what comes is there for the next one.
    `max_line` (bytes; None: any number) bounds a line, newline included.
    """

    def __init__(self, sock: Any, carrier: Any, *, max_line: int | None = None) -> None:
        self._reader = Reader(sock, max_line)
        self.carrier = carrier
        self.is_filling = False
        self.error: BaseException | None = None  # of a read, for the next that asks
        self.filler: Any = None  # the fiber that reads for another task
        self._count = 0
        self._waiter: Any = None

    @property
    def closed(self) -> bool:
        return bool(self._reader.closed)

    @property
    def buffered(self) -> int:
        """How many bytes are there without a wait."""
        return int(self._reader.buffered)

    def close(self) -> None:
        """Stop reading. The socket stays its owner's."""
        if self.filler is not None:
            self.filler.kill()
        self._reader.close()

    # --- lines -----------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[bytes]:
        line = self._reader.take_line()
        if line is not None:
            there: Awaitable[bytes] = Ready(line)
            return there
        return self._next_line()

    async def _next_line(self) -> bytes:
        """As `readline`, with the end; not over it, as that coroutine would cost 0.2 us a wait."""
        while await Filling(self):
            line: bytes | None = self._reader.take_line()
            if line is not None:
                return line
        rest: bytes = self._reader.take()
        if not rest:
            raise StopAsyncIteration
        return rest

    async def readline(self) -> bytes:
        """Read up to a newline, included; what is left at the end of the stream, then `b""`.

        Raises `LineTooLong` for a line that is longer than `max_line`.
        """
        while True:
            line: bytes | None = self._reader.take_line()
            if line is not None:
                return line
            if not await Filling(self):
                rest: bytes = self._reader.take()
                return rest

    # --- bytes -----------------------------------------------------------------------------------

    async def read(self, size: int = -1) -> bytes:
        """Read exactly `size` bytes, fewer only at the end; negative: all until the end."""
        parts: list[bytes] = []
        left = size
        while left:
            part: bytes = self._reader.take(left)
            if part:
                parts.append(part)
                left -= len(part) if size > 0 else 0
            elif not await Filling(self):
                break
        return b"".join(parts)

    async def read1(self, size: int = -1) -> bytes:
        """Read what is there, at most `size` bytes (negative: any number); wait if nothing is there."""
        if size and not self._reader.buffered:
            await Filling(self)
        found: bytes = self._reader.take(size)
        return found

    async def readexactly(self, size: int) -> bytes:
        """Read `size` bytes. Raises `asyncio.IncompleteReadError` if the stream ends before."""
        found = await self.read(size)
        if len(found) < size:
            import asyncio  # noqa: PLC0415

            raise asyncio.IncompleteReadError(found, size)
        return found

    # --- the wait --------------------------------------------------------------------------------

    def check_free(self) -> None:
        """Raise what forbids a wait for more bytes."""
        if self.is_filling or (self._waiter is not None and not self._waiter.done()):
            raise RuntimeError("another task is reading from this stream")
        if self._reader.closed:
            raise ValueError("I/O operation on closed file.")

    def receive(self) -> None:
        """In a fiber: read once more."""
        self._count = 0
        try:
            self._count = self._reader.receive()
        except Exception as error:
            self.error = error

    def take_count(self) -> int:
        """How many bytes the read has found; raises its error."""
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return self._count

    def fill_elsewhere(self) -> Any:
        """Have another fiber read, for a task that has none: a future. Cancelled, it reads on."""
        self._waiter = self.carrier.host.loop.create_future()
        if self.filler is None:
            self.filler = self.carrier.spawn(self._receive_elsewhere)
        return self._waiter

    def _receive_elsewhere(self) -> None:
        try:
            self.receive()
        finally:
            self.filler = None
            if not self._waiter.done():
                self._waiter.set_result(None)


class AsyncWriter:
    """The writing half, as `wfile`. `write` never waits; what is written leaves when its task waits.

    A handler that writes much calls `await drain()`: it waits while the peer does not read.
    """

    def __init__(self, sock: Any, carrier: Any) -> None:
        self._sock = sock
        self._carrier = carrier
        self._sends_at_once = issubclass(type(sock), FiberSocket)
        self._joins = sock.type == socket.SOCK_STREAM  # else each write is a message of its own
        self._parts: list[bytes] = []
        self._length = 0
        self._in_flight = 0
        self._sending: bytes | None = None
        self._sender: Any = None  # the fiber that sends, where the kernel did not take all at once
        self._is_dirty = False
        self._waiters: list[Any] = []
        self._error: BaseException | None = None
        self.closed = False

    @property
    def buffered(self) -> int:
        """How many bytes wait to be sent."""
        return self._length + self._in_flight

    def write(self, data: ReadableBuffer, /) -> int:
        """Take all of `data`, to be sent in order: how many bytes. Raises what an earlier send did."""
        if not self._is_dirty:
            if self._error is not None or self.closed:
                self._refuse()
            self._is_dirty = True
            self._carrier.send_soon(self)
        part: bytes = data if type(data) is bytes else bytes(flat_view(data))
        self._parts.append(part)
        size = len(part)
        self._length += size
        return size

    def writelines(self, lines: Iterable[ReadableBuffer], /) -> None:
        """Take all of `lines`."""
        for line in lines:
            self.write(line)

    def drain(self) -> Awaitable[None]:
        """Wait while more than 64 KiB wait to be sent. Raises what an earlier send did."""
        if self._length + self._in_flight > HIGH_WATER or self._error is not None:
            return self.flush()
        nothing: Awaitable[None] = _NOTHING
        return nothing

    async def flush(self) -> None:
        """Wait until the kernel has taken all that was written. Raises what an earlier send did."""
        self.send()
        while self._error is None and self._sender is not None:
            waiter = self._carrier.host.loop.create_future()
            self._waiters.append(waiter)
            await waiter
        if self._error is not None:
            self._refuse()

    def close(self) -> None:
        """In the fiber: send what is left, and write no more. Raises nothing of the peer's."""
        if self.closed:
            return
        self.send()
        self.closed = True
        if self._sender is not None:
            self._sender.join()

    # --- inside ----------------------------------------------------------------------------------

    def _refuse(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def send(self) -> None:
        """Send what the kernel takes at once; a fiber sends the rest."""
        self._is_dirty = False
        if self._error is not None:
            self._parts, self._length = [], 0  # nothing may follow what was lost
        if self._sender is not None or not self._parts:
            return
        data: bytes | None = self._take_next()
        while data is not None and self._sends_at_once:
            try:
                sent = self._sock.send(data, _NOW)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._fail(error)
                return
            if sent < len(data):
                data = data[sent:]
                break
            data = self._take_next()
        if data is not None:
            self._in_flight = len(data)
            self._sending = data
            self._sender = self._carrier.spawn(self._send_all)

    def _take_next(self) -> bytes | None:
        """What is to leave next, in one piece."""
        if not self._parts:
            return None
        if self._joins:
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts, self._length = [], 0
        else:
            data = self._parts.pop(0)
            self._length -= len(data)
        return data

    def _send_all(self) -> None:
        """The fiber: send until nothing is left."""
        data, self._sending = self._sending, None
        try:
            while data is not None:
                self._in_flight = len(data)
                self._sock.sendall(data)
                data = self._take_next()
        except OSError as error:
            self._fail(error)
        finally:
            self._sender = None
            self._in_flight = 0
            self._notify()

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._parts, self._length = [], 0
        self._notify()

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
