"""The writer: the writing half of a stream. The reference, in Python.

It stands between a socket and the `wfile` of a handler; `_writer.pyx` is the same, compiled.
"""

import threading
from typing import TYPE_CHECKING, Any, Final

from everserve.errors import FiberTimeout
from everserve.fibers import engine
from everserve.fibers.fiber import Corked
from everserve.fibers.sockets import FiberSocket
from everserve.streams.half import Half

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from everserve.fibers.fiber import Fiber

__all__ = ["Writer"]

HIGH_WATER: Final = 65536  # bytes a coalescing writer gathers


class Writer(Half, Corked):
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
            if self._coalesces and self._watch is not None and engine.current() is None:
                self.push_out()  # a thread beside the fibers: none of them would know of it
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
            if self._sender is not None:
                return  # a fiber is sending, and goes on until nothing is left
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
        if self._length:
            self.push_out()  # a thread left it to this fiber, which had just finished

    def _send_held(self) -> None:
        while self._length:
            held = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts, self._length = [], 0
            if self._watch is not None:
                self._watch.corked = None
            try:
                self.sock.sendall(held)
            except FiberTimeout as error:
                self._error = error  # some of it has left: nothing may follow
                raise  # and what the fiber waited for is to end
            except OSError as error:
                self._error = error
