"""`AsyncReader` and `AsyncWriter`: the `rfile` and `wfile` of a task of asyncio.

They stand above the streams of fibers: the fiber that carries the task reads into the buffer of a
`Reader`, so that TLS, time limits and `max_line` are those of every other stream.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Any, Final, Self

from everserve.fibers import engines
from everserve.fibers.carrying import Carrier
from everserve.fibers.sockets import flat_view
from everserve.streams import Reader

if TYPE_CHECKING:
    import asyncio

    from _typeshed import ReadableBuffer

__all__ = ["AsyncReader", "AsyncWriter"]

HIGH_WATER: Final = 65536
"""Bytes that may wait to be sent before `drain` waits; as in asyncio."""


class _NoWait:
    """What is awaited where there is nothing to wait for: 50 ns less a line than a coroutine."""

    __await__: Any = iter(()).__iter__  # called by the interpreter without a frame of Python


_NO_WAIT: Final[Awaitable[None]] = _NoWait()


class AsyncReader:
    """The reading half, as `rfile`, with coroutines. One task reads at a time.

    A read that is cancelled (`asyncio.timeout`) loses nothing: what comes is there for the next one.
    `max_line` (bytes; None: any number) bounds a line, newline included.
    """

    def __init__(self, sock: Any, carrier: Carrier, *, max_line: int | None = None) -> None:
        self._reader = Reader(sock, max_line)
        self._take_line = self._reader.take_line
        self._carrier = carrier
        self._waiter: asyncio.Future[int] | None = None
        self._is_filling = False
        self._error: BaseException | None = None

    @property
    def closed(self) -> bool:
        return self._reader.closed

    @property
    def buffered(self) -> int:
        """How many bytes are there without a wait."""
        return self._reader.buffered

    def close(self) -> None:
        """Stop reading. The socket stays its owner's."""
        self._reader.close()

    # --- lines -----------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while (line := self._take_line()) is None:
            if not await self._fill():
                if not (line := self._reader.take()):
                    raise StopAsyncIteration
                return line
        return line

    async def readline(self) -> bytes:
        """Read up to a newline, included; what is left at the end of the stream, then `b""`.

        Raises `LineTooLong` for a line that is longer than `max_line`.
        """
        while (line := self._take_line()) is None:
            if not await self._fill():
                return self._reader.take()
        return line

    # --- bytes -----------------------------------------------------------------------------------

    async def read(self, size: int = -1) -> bytes:
        """Read exactly `size` bytes, fewer only at the end; negative: all until the end."""
        parts: list[bytes] = []
        left = size
        while left:
            part = self._reader.take(left)
            if part:
                parts.append(part)
                left -= len(part) if size > 0 else 0
            elif not await self._fill():
                break
        return b"".join(parts)

    async def read1(self, size: int = -1) -> bytes:
        """Read what is there, at most `size` bytes (negative: any number); wait if nothing is there."""
        if size and not self._reader.buffered:
            await self._fill()
        return self._reader.take(size)

    async def readexactly(self, size: int) -> bytes:
        """Read `size` bytes. Raises `asyncio.IncompleteReadError` if the stream ends before."""
        found = await self.read(size)
        if len(found) < size:
            import asyncio  # noqa: PLC0415

            raise asyncio.IncompleteReadError(found, size)
        return found

    # --- the wait --------------------------------------------------------------------------------

    def _fill(self) -> asyncio.Future[int]:
        """Ask for more bytes; the result is how many came, 0 at the end of the stream."""
        if self._waiter is not None and not self._waiter.done():
            raise RuntimeError("another task is reading from this stream")
        if self._reader.closed:
            raise ValueError("I/O operation on closed file.")
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        waiter: asyncio.Future[int] = self._carrier.host.loop.create_future()
        self._waiter = waiter
        if not self._is_filling:
            self._is_filling = True
            self._carrier.ask(self._receive)
        return waiter

    def _receive(self) -> None:
        """In the fiber: read once more. The task that asked for it may have been cancelled."""
        try:
            count = self._reader.receive()
        except Exception as error:
            if self._waiter is None or self._waiter.done():
                self._error = error
            else:
                self._waiter.set_exception(error)
        else:
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(count)
        finally:
            self._is_filling = False


class AsyncWriter:
    """The writing half, as `wfile`. `write` never waits; what is written leaves when its task waits.

    A handler that writes much calls `await drain()`: it waits while the peer does not read.
    """

    def __init__(self, sock: Any, carrier: Carrier) -> None:
        self._sock = sock
        self._carrier = carrier
        self._sends_at_once = issubclass(type(sock), engines.FiberSocket)
        self._joins = sock.type == socket.SOCK_STREAM  # else each write is a message of its own
        self._parts: list[bytes] = []
        self._length = 0
        self._in_flight = 0
        self._sender: Any = None  # the fiber that sends, where the kernel did not take all at once
        self._is_dirty = False
        self._waiters: list[asyncio.Future[None]] = []
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
            self._carrier.host.send_soon(self)
        if type(data) is not bytes:
            data = bytes(flat_view(data))
        self._parts.append(data)
        size = len(data)
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
        return _NO_WAIT

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
                sent = self._sock.send(data, socket.MSG_DONTWAIT)
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
            self._sender = self._carrier.hub.spawn(self._send_all, data)
            self._carrier.host.schedule()

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

    def _send_all(self, data: bytes | None) -> None:
        """The fiber: send until nothing is left."""
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
