"""A socket that counts its bytes, for deadlines where the kernel does not count.

For TCP on Linux `tcpinfo` reads the kernel's counters. For Unix sockets, and on other systems,
`admission.steps` puts this layer between the connection and its handler.
"""

import socket
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any

from everserve.sockets.genuine import RealSocket
from everserve.sockets.layer import Layer
from everserve.sockets.tcpinfo import Traffic

if TYPE_CHECKING:
    from socket import _SendableFile

    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["PIECE", "CountedSocket"]

PIECE = 16_384
"""Bytes of one send(2): a blocking send(2) of more shows no progress before its end."""


class CountedSocket(Layer):
    """Counts the `Traffic` of a connected stream socket, `inner`, from its own creation on.

    Bytes that bypass it are not counted.

    *Ownership*: as for every `Layer`, `inner` owns the descriptor.
    """

    __slots__ = ("_moved", "_now", "_received", "_sending", "_sent")

    def __init__(self, inner: socket.socket, now: Callable[[], float] = monotonic) -> None:
        super().__init__(inner)
        self._now = now
        self._moved = now()
        self._received = self._sent = self._sending = 0

    def traffic(self) -> Traffic | None:
        """The counts; None once a wrapper has the descriptor, whose bytes bypass this socket.

        `delivered`: bytes that the kernel accepted; `waiting`: a send is in progress.
        """
        if self._inner.fileno() == -1:
            return None
        return Traffic(self._now() - self._moved, self._received, self._sent, self._sending > 0)

    def dup(self) -> socket.socket:  # type: ignore[override]
        """A duplicate of the socket below: bytes that bypass this one are not counted."""
        return self._inner.dup()

    # --- in ------------------------------------------------------------------------------------

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        data = self._inner.recv(bufsize, flags)
        self._came(len(data))
        return data

    def recv_into(self, buffer: "WriteableBuffer", nbytes: int = 0, flags: int = 0) -> int:
        return self._came(self._inner.recv_into(buffer, nbytes, flags))

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> Any:
        found = self._inner.recvfrom(bufsize, flags)
        self._came(len(found[0]))
        return found

    def recvmsg(self, *arguments: int) -> Any:
        found = self._inner.recvmsg(*arguments)
        self._came(len(found[0]))
        return found

    def recvmsg_into(self, *arguments: Any) -> Any:
        found = self._inner.recvmsg_into(*arguments)
        self._came(found[0])
        return found

    def _came(self, count: int) -> int:
        if count:
            self._received += count
            self._moved = self._now()
        return count

    # --- out -----------------------------------------------------------------------------------

    def send(self, data: "ReadableBuffer", flags: int = 0, /) -> int:
        """Send some of `data`: at most `PIECE` bytes."""
        with memoryview(data) as view, view.cast("B") as left:
            return self._send(left[:PIECE], flags)

    def sendall(self, data: "ReadableBuffer", flags: int = 0, /) -> None:
        """Send `data`; a time limit applies to the whole, and is checked between the pieces too."""
        timeout = self._inner.gettimeout()
        limit = None if timeout is None else self._now() + timeout
        with memoryview(data) as view, view.cast("B") as left:
            done = 0
            while done < len(left):
                if timeout and limit is not None and self._now() > limit:
                    raise TimeoutError("timed out")
                done += self._send(left[done : done + PIECE], flags)

    def sendmsg(self, buffers: "Iterable[ReadableBuffer]", *rest: Any) -> int:  # type: ignore[override]
        return self._goes(self._inner.sendmsg, buffers, *rest)

    def sendfile(self, file: "_SendableFile", offset: int = 0, count: int | None = None) -> int:
        private: Any = RealSocket
        sent: int = private._sendfile_use_send(self, file, offset, count)
        return sent

    def _send(self, data: memoryview, flags: int) -> int:
        # Without flags, as the layer below may accept none.
        return self._goes(self._inner.send, data, *((flags,) if flags else ()))

    def _goes(self, send: Callable[..., int], *arguments: Any) -> int:
        self._sending += 1
        try:
            count = send(*arguments)
        finally:
            self._sending -= 1
        self._sent += count
        self._moved = self._now()
        return count

    # --- the rest ------------------------------------------------------------------------------

    def shutdown(self, how: int, /) -> None:
        self._inner.shutdown(how)
