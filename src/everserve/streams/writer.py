"""The writer: the writing half of a stream. The reference, in Python.

It stands between a socket and the `wfile` of a handler; `_writer.pyx` is the same, compiled.
"""

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Final

from everserve.errors import FiberTimeout
from everserve.fibers import engines
from everserve.fibers.fiber import Buffered
from everserve.fibers.sockets import FiberSocket, flat_view
from everserve.sockets.genuine import RealSocket
from everserve.sockets.sending import send_now
from everserve.streams.half import Half

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from everserve.fibers.fiber import Fiber

__all__ = ["Writer"]

HIGH_WATER: Final = 65536  # bytes that a coalescing writer buffers


class Writer(Half, Buffered):
    """The writing half: the binary file that `wfile` is.

    Without a buffer each write is a `sendall`. With one, up to `size` bytes are buffered; a writer
    that coalesces also sends them when the fiber waits for anything, or the thread for a read. Where
    each write is a message of its own (SOCK_SEQPACKET), none are sent together.
    """

    _sends = False

    def __init__(self, sock: Any, size: int = 0, coalesce: bool = False) -> None:
        super().__init__(sock)
        self._watch: Any = sock._watch if issubclass(type(sock), FiberSocket) else None
        self._is_unbuffered = size <= 0  # for the program
        self._coalesces = coalesce and (self._watch is None or self._watch.is_stream)
        self._size = HIGH_WATER if self._coalesces and size <= 0 else max(0, size)
        self._sends = self._watch is not None or type(sock) is RealSocket
        self._parts: list[bytes] = []
        self._length = 0
        self._holder: Fiber | None = None  # the fiber that will flush this writer when it waits
        self._error: OSError | None = None  # of a send, for the next call to raise
        self._lock = threading.RLock()  # so that two threads do not send parts of one buffer
        self._step = threading.Lock()  # for a change of what follows; never held over a wait
        self._sending = False
        self._sender: Fiber | None = None  # the one that is sending, unless that is a thread
        self._waiting: list[Fiber] = []  # fibers that wait until the sender has sent

    @property
    def mode(self) -> str:
        return "wb"

    @property
    def buffered(self) -> int:
        """How many bytes are buffered."""
        return self._length

    def readable(self) -> bool:
        self._check_open()
        return False

    def writable(self) -> bool:
        self._check_open()
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write all of `data`, now or together with what follows; return how many bytes."""
        if self.closed:
            return self._write_late(data)
        if not self._size or engines.current() is not None:
            return self._add(data)
        with self._lock:
            return self._add(data)

    def _add(self, data: "ReadableBuffer") -> int:
        if self._error is not None:
            self._raise_error()
        size = len(data) if type(data) is bytes else len(flat_view(data))
        if self._length and self._length + size > self._size:
            self.flush()
        if size >= self._size:
            if size:
                self.sock.sendall(data)
            return size
        if size:
            self._flush_when_waiting()
            self._append(data if type(data) is bytes else bytes(data))
            if self._coalesces and self._watch is not None and engines.current() is None:
                self.flush_buffer()  # written by a thread beside the fibers: none of them would send it
        return size

    def _write_late(self, data: "ReadableBuffer") -> int:
        """After the close. The unbuffered file of `socketserver` leaves that to the socket: an OSError
        once that is closed too.
        """
        if not self._is_unbuffered:
            self._check_open()
        self.sock.sendall(data)
        return len(data) if type(data) is bytes else len(flat_view(data))

    def _append(self, data: bytes) -> None:
        with self._step:
            self._parts.append(data)
            self._length += len(data)

    def flush(self) -> None:
        """Send what is buffered; raises its error, or that of an earlier send."""
        self._check_open()
        self.flush_buffer()
        self._raise_error()

    def close(self) -> None:
        """Flush, then stop writing. Closes the socket as `Reader.close` does."""
        if self.closed:
            return
        try:
            super().close()
        finally:
            self._release()

    def __del__(self) -> None:
        """Without `close()`: send what the kernel takes at once, because a destructor must not wait.

        That is nothing where only the methods of the socket may send.
        """
        if self._sends and self._length and self._error is None:
            with contextlib.suppress(OSError):
                send_now(self.sock, b"".join(self._parts))
        self._parts, self._length = [], 0
        self._release()

    # --- inside --------------------------------------------------------------------------------

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _flush_when_waiting(self) -> None:
        """Have the bytes sent when the fiber waits, and before any that are sent past this stream."""
        if not self._coalesces:
            return
        if self._watch is not None:
            self._watch.buffered = self
        fiber = engines.current()
        if fiber is not None and self._holder is not fiber:
            self._holder = fiber
            fiber.add_buffered(self)

    def flush_quietly(self) -> bool:
        """Flush as `flush_buffer` does; True when that had to wait."""
        self._holder = None
        if not self._length or self.closed:
            return False
        fiber = engines.current()
        before = None if fiber is None else fiber.hub.switches
        self.flush_buffer()
        return fiber is not None and fiber.hub.switches != before

    def flush_buffer(self) -> None:
        """Send all that is buffered; an error of the peer is kept for the next call."""
        fiber = engines.current()
        if fiber is None:
            with self._lock:
                if self._begin_sending():
                    self._send_alone()
            return  # a fiber that is sending does so until nothing is left
        while not self._begin_sending(fiber):
            if self._sender is fiber:
                return  # its `sendall` has found what a thread has just written: that comes next
            fiber.hub.park()
        self._send_alone()

    def _begin_sending(self, fiber: "Fiber | None" = None) -> bool:
        """Become the one that sends, or have `fiber` woken when the other has done so."""
        with self._step:
            if not self._sending:
                self._sending, self._sender = True, fiber
                return True
            if fiber is not None and fiber is not self._sender:
                self._waiting.append(fiber)
            return False

    def _send_alone(self) -> None:
        """Send what is buffered while every other fiber that would waits."""
        try:
            self._send_buffered()
        finally:
            with self._step:
                self._sending, self._sender = False, None
                waiting, self._waiting = self._waiting, []
            for other in waiting:
                other.wake()
        if self._length:
            self.flush_buffer()  # a thread left it to this one, which had finished at that moment

    def _send_buffered(self) -> None:
        while self._length:
            with self._step:
                data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
                self._parts, self._length = [], 0
            if self._watch is not None:
                self._watch.buffered = None
            try:
                self.sock.sendall(data)
            except FiberTimeout as error:
                self._error = error  # a part may have been sent: nothing may follow
                raise  # ends the wait of the fiber
            except OSError as error:
                self._error = error
