"""The stream: a `Reader` and a `Writer` over one socket. The reference, in Python.

It stands between a socket and the `rfile` and `wfile` of a handler; `_stream.pyx` is the same,
compiled.
"""

import io
import socket
import threading
from typing import TYPE_CHECKING, Any, Final, Self

from everserve.errors import LineTooLong
from everserve.fibers import engine
from everserve.fibers.hub import Corked
from everserve.fibers.sockets import FiberSocket

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from everserve.fibers.hub import Fiber

__all__ = ["Reader", "Writer", "open_stream"]

READ_BYTES: Final = 65536  # what one read may find
HIGH_WATER: Final = 65536  # bytes a coalescing writer gathers
DEFAULT_SIZE: Final = 8192
_LINES_A_GLANCE: Final = 32  # lines between two looks at the fiber's quantum


class _Half(io.BufferedIOBase):
    """What both directions share: the socket and the formalities of a file."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self._counts = isinstance(sock, socket.socket)
        if self._counts:
            sock._io_refs += 1  # as with makefile(): the descriptor lives until its files close

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")

    def _let_go(self) -> None:
        """The socket closes too if somebody has closed it and this was its last file."""
        if self._counts:
            self._counts = False
            self.sock._decref_socketios()

    @property
    def name(self) -> int:
        return -1 if self.closed else self.sock.fileno()

    def fileno(self) -> int:
        self._check_open()
        fd: int = self.sock.fileno()
        return fd

    def seekable(self) -> bool:
        self._check_open()
        return False

    def __reduce__(self) -> Any:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")


class Reader(_Half):
    """The reading half: the buffered binary file that `rfile` is.

    `max_line` bounds what an unlimited `readline` or iteration gathers, newline included; None
    leaves it to memory, as the standard library does.
    """

    def __init__(self, sock: Any, max_line: int | None = None) -> None:
        super().__init__(sock)
        self.max_line = max_line
        self._receives = isinstance(sock, FiberSocket) or type(sock) is socket.socket
        self._buffer = b""
        self._start = 0
        self._lines = 0
        self._timed_out = False
        self._writer: Writer | None = None  # whose bytes leave before this half waits

    @property
    def mode(self) -> str:
        return "rb"

    def readable(self) -> bool:
        self._check_open()
        return True

    def writable(self) -> bool:
        self._check_open()
        return False

    def close(self) -> None:
        """Stop reading. The socket stays, unless it was closed and this was its last file."""
        if not self.closed:
            super().close()
            self._buffer, self._start = b"", 0
            self._let_go()

    # --- the buffer --------------------------------------------------------------------------

    def _fill(self) -> int | None:
        """Read once more into the buffer: how many bytes, 0 at the end, None if it would block."""
        self._check_open()
        if self._timed_out:
            raise OSError("cannot read from timed out object")
        if self._start:
            self._buffer = self._buffer[self._start :]
            self._start = 0
        if self._writer is not None:
            self._writer.push_out()
        data = self._receive()
        if data is None:
            return None
        self._check_open()
        self._buffer = self._buffer + data if self._buffer else data
        return len(data)

    def _receive(self) -> bytes | None:
        try:
            if self._receives:
                data: bytes = self.sock.recv(READ_BYTES)
                return data
            room = bytearray(READ_BYTES)
            count = self.sock.recv_into(room)
            return bytes(memoryview(room)[:count])
        except BlockingIOError:
            return None
        except TimeoutError as error:
            self._timed_out = type(error) is TimeoutError  # a Timeout block's leaves it usable
            raise

    def _cut(self, end: int) -> bytes:
        start = self._start
        found = self._buffer[start:end]
        if end >= len(self._buffer):
            self._buffer, self._start = b"", 0
        else:
            self._start = end
        return found

    # --- lines ---------------------------------------------------------------------------------

    def __iter__(self) -> Self:
        self._check_open()
        return self

    def __next__(self) -> bytes:
        self._lines += 1
        if self._lines >= _LINES_A_GLANCE:
            self._glance()
        line = self._read_line(-1)
        if not line:
            raise StopIteration
        return line

    def _glance(self) -> None:
        """Every so many lines: whether the fiber has held the loop for long enough."""
        self._lines = 0
        fiber = engine.current()
        if fiber is not None:
            fiber.hub.spend()

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read up to and with a newline, at most `size` bytes (negative or None: any number)."""
        self._check_open()
        return self._read_line(-1 if size is None else size)

    def _read_line(self, size: int) -> bytes:
        bounded = size < 0 and self.max_line is not None
        most = size if self.max_line is None or size >= 0 else self.max_line
        seen = 0
        while True:
            start = self._start
            end = len(self._buffer) if most < 0 else min(len(self._buffer), start + most)
            newline = self._buffer.find(b"\n", start + seen, end)
            if newline >= 0:
                return self._cut(newline + 1)
            seen = end - start
            if 0 <= most <= seen:
                if bounded:
                    raise LineTooLong(
                        f"a line of more than {most} bytes came: raise max_line "
                        "if such lines are meant, or end the connection"
                    )
                return self._cut(end)
            if not self._fill():
                return self._cut(len(self._buffer))

    # --- bytes ---------------------------------------------------------------------------------

    def read(self, size: int | None = -1, /) -> bytes | None:  # type: ignore[override]
        """Read exactly `size` bytes, fewer only at the end; all until the end without a size."""
        self._check_open()
        if size is None or size == -1:
            return self._gather(None)
        if size < 0:
            raise ValueError("read length must be non-negative or -1")
        return self._gather(size)

    def _gather(self, size: int | None) -> bytes | None:
        parts: list[bytes] = []
        left = size
        count: int | None = 0
        while left is None or left > 0:
            here = len(self._buffer) - self._start
            if here:
                part = self._cut(
                    len(self._buffer) if left is None else self._start + min(left, here)
                )
                parts.append(part)
                left = None if left is None else left - len(part)
                continue
            count = self._fill()
            if not count:
                break
        return None if count is None and not parts else b"".join(parts)

    def read1(self, size: int | None = -1, /) -> bytes:
        """Read what is there, at most `size` bytes, waiting only when nothing is."""
        self._check_open()
        if size == 0:
            return b""
        if self._start == len(self._buffer) and not self._fill():
            return b""
        if size is None or size < 0:
            return self._cut(len(self._buffer))
        return self._cut(min(len(self._buffer), self._start + size))

    def peek(self, size: int = 0, /) -> bytes:
        """What is there, without taking it; waits only when nothing is."""
        self._check_open()
        if self._start == len(self._buffer):
            self._fill()
        return self._buffer[self._start :]

    def readinto(self, target: "WriteableBuffer", /) -> int | None:  # type: ignore[override]
        """Fill `target`, less only at the end; how many bytes."""
        return self._read_view(target, wholly=True)

    def readinto1(self, target: "WriteableBuffer", /) -> int | None:  # type: ignore[override]
        """Put what is there into `target`, waiting only when nothing is; how many bytes."""
        return self._read_view(target, wholly=False)

    def _read_view(self, target: "WriteableBuffer", *, wholly: bool) -> int | None:
        self._check_open()
        with memoryview(target) as whole, whole.cast("B") as view:
            data = self._gather(len(view)) if wholly else self.read1(len(view))
            if data is None:
                return None
            view[: len(data)] = data
            return len(data)


class Writer(_Half, Corked):
    """The writing half: the binary file that `wfile` is.

    Without a buffer each write is a `sendall`. With one, bytes gather until `size` have; when it
    coalesces, they also leave as soon as the fiber waits for anything, or the thread for a read.
    """

    def __init__(self, sock: Any, size: int = 0, coalesce: bool = False) -> None:
        super().__init__(sock)
        self._size = HIGH_WATER if coalesce and size <= 0 else max(0, size)
        self._coalesces = coalesce
        self._watch: Any = sock._watch if isinstance(sock, FiberSocket) else None
        self._parts: list[bytes] = []
        self._length = 0
        self._holder: Fiber | None = None  # in whose pending list this writer stands
        self._error: OSError | None = None  # what sending met, for the next call to raise
        self._turn = threading.RLock()  # two threads shall not send pieces of one buffer
        self._sender: Fiber | None = None
        self._queue: list[Fiber] = []  # fibers that wait until another has sent

    @property
    def mode(self) -> str:
        return "wb"

    @property
    def pending(self) -> int:
        """How many bytes are held back."""
        return self._length

    def readable(self) -> bool:
        self._check_open()
        return False

    def writable(self) -> bool:
        self._check_open()
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write all of `data`, now or with what follows; how many bytes."""
        self._check_open()
        if not self._size or engine.current() is not None:
            return self._add(data)
        with self._turn:
            return self._add(data)

    def _add(self, data: "ReadableBuffer") -> int:
        if self._error is not None:
            self._raise_error()
        size = len(data) if type(data) is bytes else memoryview(data).nbytes
        if self._length and self._length + size > self._size:
            self.flush()
        if size >= self._size:
            if size:
                self.sock.sendall(data)
            return size
        if size:
            self._hold_back()
            self._parts.append(data if type(data) is bytes else bytes(data))
            self._length += size
        return size

    def flush(self) -> None:
        """Send what is held back; raises what sending it, or what was held before, has met."""
        self._check_open()
        self.push_out()
        self._raise_error()

    def close(self) -> None:
        """Flush, then stop writing. The socket stays, as with `Reader.close`."""
        if self.closed:
            return
        try:
            super().close()
        finally:
            self._let_go()

    def __del__(self) -> None:
        """Nobody closed it: what is held goes with it, for a destructor must not wait."""
        self._parts, self._length = [], 0
        self._let_go()

    # --- inside --------------------------------------------------------------------------------

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _hold_back(self) -> None:
        """See to it that the bytes leave when the fiber waits, and before any sent past them."""
        if not self._coalesces:
            return
        if self._watch is not None:
            self._watch.corked = self
        fiber = engine.current()
        if fiber is not None and self._holder is not fiber:
            self._holder = fiber
            fiber.hold(self)

    def settle(self) -> bool:
        """The fiber waits: send. True when that had to wait itself."""
        self._holder = None
        if not self._length or self.closed:
            return False
        fiber = engine.current()
        before = None if fiber is None else fiber.hub.switches
        self.push_out()
        return fiber is not None and fiber.hub.switches != before

    def push_out(self) -> None:
        """Send all that is held; what the peer makes of it is kept for the next call."""
        fiber = engine.current()
        if fiber is None:
            with self._turn:
                self._send_held()
            return
        while self._sender is not None:
            self._queue.append(fiber)
            fiber.hub.park()
        self._sender = fiber
        try:
            self._send_held()
        finally:
            self._sender = None
            waiting, self._queue = self._queue, []
            for other in waiting:
                other.wake()

    def _send_held(self) -> None:
        while self._length:
            held = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts, self._length = [], 0
            if self._watch is not None:
                self._watch.corked = None
            try:
                self.sock.sendall(held)
            except OSError as error:
                self._error = error


def open_stream(
    sock: Any, *, wbufsize: int = 0, coalesce: bool = False, max_line: int | None = None
) -> tuple[Reader, Writer]:
    """Open both halves over a connected socket: (reader, writer).

    `wbufsize` as in `socketserver`: 0 sends each write at once, more is the size of the buffer,
    less takes 8192. `coalesce` holds writes back until the fiber waits, or the thread reads.
    `max_line` (bytes; None: any) bounds a line. The socket stays the caller's: both halves keep its
    descriptor open until they are closed, as the files of `socket.makefile` do.
    """
    reader = Reader(sock, max_line)
    writer = Writer(sock, DEFAULT_SIZE if wbufsize < 0 else wbufsize, coalesce)
    if coalesce:
        reader._writer = writer
    return reader, writer
