"""The reader: the reading half of a stream. The reference, in Python.

It stands between a socket and the `rfile` of a handler; `_reader.pyx` is the same, compiled.
"""

import socket
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from everserve.errors import LineTooLong
from everserve.fibers import engines
from everserve.fibers.sockets import FiberSocket
from everserve.sockets.genuine import RealSocket
from everserve.sockets.tls import TLSSocket
from everserve.streams.half import Half
from everserve.streams.writer import Writer

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Reader"]

READ_BYTES: Final = 65536  # bytes that one read may find
_READS_A_CHECKPOINT: Final = 32  # lines, or other pieces, between two checkpoints of the fiber


class Reader(Half):
    """The reading half: the buffered binary file that `rfile` is.

    `max_line` bounds a line of `readline()` without a size and of iteration, newline included. None
    sets no bound, as in the standard library.
    """

    _raw: socket.SocketIO | None = None

    def __init__(self, sock: Any, max_line: int | None = None) -> None:
        super().__init__(sock)
        self.max_line = max_line
        self._parks = issubclass(type(sock), FiberSocket)
        self._receives = (
            self._parks or issubclass(type(sock), TLSSocket) or type(sock) is RealSocket
        )
        self._is_exclusive = type(sock) is RealSocket  # one thread reads at a time
        self._busy = False
        self._buffer = b""
        self._start = 0
        self._seen = 0  # bytes of the buffer in which `take_line` found no newline
        self._reads = 0
        self._timed_out = False
        self._writer: Writer | None = None  # flushed before this half waits

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
        """Stop reading. Closes the socket if its owner has closed it and this was its last file."""
        if not self.closed:
            super().close()
            self._buffer, self._start = b"", 0
            if self._raw is not None:
                self._raw.close()
            self._release()

    @property
    def raw(self) -> socket.SocketIO:
        """The unbuffered file below, as that of `makefile("rb").raw`: it reads past the buffer."""
        self._check_open()
        if self._raw is None:
            self.sock._io_refs += 1  # it holds the socket too
            self._raw = socket.SocketIO(self.sock, "r")
        return self._raw

    def detach(self) -> socket.SocketIO:
        """Become closed, and give the unbuffered file to the caller; what is buffered is dropped."""
        raw, self._raw = self.raw, None
        self.close()
        return raw

    # --- the buffer --------------------------------------------------------------------------

    def _fill(self) -> int | None:
        """Read once more into the buffer: how many bytes; 0 at the end; None if it would block."""
        self._check_open()
        if self._timed_out:
            raise OSError("cannot read from timed out object")
        if self._busy:
            raise RuntimeError("another thread is reading from this stream")
        if self._start:
            self._buffer = self._buffer[self._start :]
            self._start = 0
        if self._writer is not None and not (self._parks and engines.current() is not None):
            self._writer.flush_buffer()  # for a fiber, its wait does that
        data = self._receive()
        if data is None:
            return None
        self._check_open()
        self._buffer = self._buffer + data if self._buffer else data
        return len(data)

    def _receive(self) -> bytes | None:
        self._busy = self._is_exclusive
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
            self._timed_out = type(error) is TimeoutError  # not by a Timeout block
            raise
        finally:
            self._busy = False

    def _cut(self, end: int) -> bytes:
        start = self._start
        self._seen = 0
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
        self._count_read()
        line = self._read_line(-1)
        if not line:
            raise StopIteration
        return line

    def _count_read(self) -> None:
        """Count a piece; every so many, let the fiber give way if it has held the loop for long."""
        self._reads += 1
        if self._reads < _READS_A_CHECKPOINT:
            return
        self._reads = 0
        fiber = engines.current()
        if fiber is not None:
            fiber.hub.checkpoint()

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read up to a newline, included, at most `size` bytes (negative or None: any number)."""
        self._check_open()
        self._count_read()
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
                    self._refuse_line(most)
                return self._cut(end)
            if not self._fill():
                return self._cut(len(self._buffer))

    def _refuse_line(self, most: int) -> NoReturn:
        raise LineTooLong(
            f"a line of more than {most} bytes came: raise max_line "
            "if such lines are meant, or end the connection"
        )

    # --- without a wait, for tasks -------------------------------------------------------------

    @property
    def buffered(self) -> int:
        """How many bytes are there without a wait."""
        return len(self._buffer) - self._start

    def receive(self) -> int:
        """Read once more into the buffer: how many bytes; 0 at the end of the stream."""
        return self._fill() or 0

    def take(self, size: int = -1) -> bytes:
        """What is in the buffer, at most `size` bytes (negative: all)."""
        self._check_open()
        there = self.buffered
        return self._cut(self._start + (there if size < 0 else min(size, there)))

    def take_line(self) -> bytes | None:
        """The next line if the buffer has it whole, else None; raises as `readline`."""
        self._check_open()
        newline = self._buffer.find(b"\n", self._start + self._seen)
        size = self.buffered if newline < 0 else newline + 1 - self._start
        most = self.max_line
        if most is not None and (size > most or (newline < 0 and size == most)):
            self._refuse_line(most)
        if newline < 0:
            self._seen = size
            return None
        return self._cut(newline + 1)

    # --- bytes ---------------------------------------------------------------------------------

    def read(self, size: int | None = -1, /) -> bytes | None:  # type: ignore[override]
        """Read exactly `size` bytes, fewer only at the end; without a size, all until the end."""
        self._check_open()
        self._count_read()
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
        """Read what is there, at most `size` bytes; wait only if nothing is there."""
        self._check_open()
        self._count_read()
        return self._take(-1 if size is None else size) or b""

    def _take(self, size: int) -> bytes | None:
        """As `read1`, but None if it would block."""
        if size == 0:
            return b""
        if self._start == len(self._buffer) and self._fill() is None:
            return None
        there = len(self._buffer)
        return self._cut(there if size < 0 else min(there, self._start + size))

    def peek(self, size: int = 0, /) -> bytes:
        """Return what is there without consuming it; wait only if nothing is there."""
        self._check_open()
        if self._start == len(self._buffer):
            self._fill()
        return self._buffer[self._start :]

    def readinto(self, target: "WriteableBuffer", /) -> int | None:  # type: ignore[override]
        """Fill `target`, less only at the end; return how many bytes."""
        return self._read_view(target, wholly=True)

    def readinto1(self, target: "WriteableBuffer", /) -> int | None:  # type: ignore[override]
        """Put what is there into `target`; wait only if nothing is there. Return how many bytes."""
        return self._read_view(target, wholly=False)

    def _read_view(self, target: "WriteableBuffer", *, wholly: bool) -> int | None:
        self._check_open()
        self._count_read()
        with memoryview(target) as whole, whole.cast("B") as view:
            if view.readonly:
                raise TypeError("a read-write bytes-like object is needed")
            data = self._gather(len(view)) if wholly else self._take(len(view))
            if data is None:
                return None
            view[: len(data)] = data
            return len(data)
