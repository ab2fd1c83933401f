"""`FiberSocket`: a real `socket.socket` whose waits park the fiber. The reference, in Python.

It stands between the hub and the handlers; the compiled engine replaces the hot methods and inherits
the others.
"""

import _socket
import errno
import io
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, Any, Self, TypeVar

from everserve.errors import FiberTimeout
from everserve.fibers.loop import FOREVER, IN, OUT, Watch
from everserve.fibers.scheduler import Scheduler, running_hub
from everserve.fibers.threadwaits import poll_once
from everserve.sockets.genuine import RealSocket

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["FiberSocket", "flat_view"]

T = TypeVar("T")
Ancillary = tuple[int, int, bytes]

_CSocket: Any = _socket.socket
_private: Any = socket  # what socket.socket keeps to itself and its subclasses need
_c_init = _CSocket.__init__
_c_accept: Callable[..., tuple[int, Any]] = _CSocket._accept
_c_recv: Callable[..., bytes] = _CSocket.recv
_c_recv_into: Callable[..., int] = _CSocket.recv_into
_c_recvfrom: Callable[..., tuple[bytes, Any]] = _CSocket.recvfrom
_c_recvfrom_into: Callable[..., tuple[int, Any]] = _CSocket.recvfrom_into
_c_recvmsg: Callable[..., tuple[bytes, list[Ancillary], int, Any]] = _CSocket.recvmsg
_c_recvmsg_into: Callable[..., tuple[int, list[Ancillary], int, Any]] = _CSocket.recvmsg_into
_c_send: Callable[..., int] = _CSocket.send
_c_sendto: Callable[..., int] = _CSocket.sendto
_c_sendmsg: Callable[..., int] = _CSocket.sendmsg
_STREAMS_THAT_INFER = (socket.AF_INET, socket.AF_INET6)
_IN_PROGRESS = (errno.EINPROGRESS, errno.EALREADY)
_SENDFILE_BYTES = 1 << 20
_AT_ONCE = socket.MSG_DONTWAIT
"""With each call: a handler that sets its descriptor to blocking must not hold the loop by that."""


def flat_view(data: "ReadableBuffer") -> memoryview:
    """The bytes of `data`; BufferError if they are not in one piece, as `socket.send` raises."""
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("memoryview: underlying buffer is not C-contiguous")
    return view.cast("B")


def _size_in(room: memoryview, nbytes: int) -> int:
    """How many bytes to receive into `room`, of which a caller has named `nbytes`; 0: all."""
    if nbytes < 0:
        raise ValueError("negative buffersize in recv_into")
    if nbytes > len(room):
        raise ValueError("buffer too small for requested bytes")
    if room.readonly:
        raise TypeError("recv_into() needs a read-write bytes-like object")
    return nbytes or len(room)


class FiberSocket(RealSocket):
    """A socket that blocks its fiber and nothing else.

    Everything of `socket.socket` has its documented meaning, also `settimeout`: with None a call
    waits for ever, with 0 never, with any other number at most so many seconds. Outside of a fiber
    it is an ordinary blocking socket. Its descriptor is always non-blocking, also in a child
    process that inherits it; `detach()` sets it to the mode that the timeout stands for.
    """

    __slots__ = ("_watch",)

    _watch: Watch
    if TYPE_CHECKING:  # of socket.socket, and missing in its stub
        _io_refs: int
        _closed: bool
        _check_sendfile_params: Callable[..., None]

    def __init__(
        self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None
    ) -> None:
        super().__init__(family, type, proto, fileno)
        timeout = super().gettimeout()
        super().settimeout(0.0)
        self._watch = self._new_watch(self.fileno(), self.family, self.type)
        self.settimeout(timeout)

    @classmethod
    def adopt(cls, sock: "socket.socket | int") -> Self:
        """Take over a socket or a descriptor; the former object no longer owns the descriptor."""
        if isinstance(sock, int):
            os.set_blocking(sock, False)
            return cls(fileno=sock)
        family, kind, proto, timeout = sock.family, sock.type, sock.proto, sock.gettimeout()
        sock.setblocking(False)
        adopted = cls._adopt(sock.detach(), family, kind, proto)
        adopted.settimeout(timeout)
        return adopted

    # --- what the compiled engine replaces ---------------------------------------------------

    @staticmethod
    def _new_watch(fd: int, family: int, kind: int) -> Any:
        """Make the state of one descriptor. Only with TCP a short read means that nothing is left."""
        is_stream = kind == socket.SOCK_STREAM
        watch = Watch(fd, is_stream and family in _STREAMS_THAT_INFER)
        watch.is_stream = is_stream
        return watch

    @classmethod
    def _adopt(cls, fd: int, family: int, kind: int, proto: int) -> Self:
        """Make a socket that owns `fd`, which is non-blocking already."""
        sock: Self = _CSocket.__new__(cls)
        _c_init(sock, family, kind | socket.SOCK_NONBLOCK, proto, fd)
        sock._io_refs = 0
        sock._closed = False
        sock._watch = cls._new_watch(fd, family, kind)
        return sock

    def _set_timeout(self, timeout: float | None) -> None:
        self._watch.timeout = timeout

    def gettimeout(self) -> float | None:
        return self._watch.timeout

    def _release(self) -> None:
        """Wake what waits for the descriptor, which is about to be closed or detached."""
        self._watch.release()

    def _mark_duplicated(self) -> None:
        self._watch.duplicated = True

    def _flush_buffered(self) -> None:
        """Send what a stream of this socket has buffered."""
        if self._watch.buffered is not None:
            self._watch.buffered.flush_quietly()

    def _checkpoint(self) -> Scheduler | None:
        """Count an operation, so that a fiber that never waits gives way to the others."""
        hub = running_hub()
        if hub is not None:
            hub.checkpoint()
        return hub

    def _wait(self, writing: bool, limit: float | None) -> None:
        """Wait until the descriptor may be ready, or until `limit` (None: for ever)."""
        watch = self._watch
        if watch.fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._note_refusal(writing)
        self._await_io(running_hub(), writing, limit)

    def _note_refusal(self, writing: bool) -> None:
        """The kernel has said EAGAIN."""
        watch = self._watch
        if writing:
            watch.writable = False
            watch.refused |= OUT
        else:
            watch.readable = False
            watch.refused |= IN

    def _await_io(self, hub: Scheduler | None, writing: bool, limit: float | None) -> None:
        watch = self._watch
        if hub is not None:
            ready = hub.await_io(watch, writing, FOREVER if limit is None else limit)
        else:
            ready = poll_once(watch.fd, writing, limit)
            if writing:
                watch.writable = True
            else:
                watch.readable = True
        if not ready:
            raise TimeoutError("timed out")
        if watch.fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        if bufsize < 0:
            raise ValueError("negative buffersize in recv")
        if bufsize == 0:
            return b""  # as CPython does: recv(2) would wait for data
        if flags & socket.MSG_WAITALL and self.gettimeout() is None:
            room = bytearray(bufsize)
            return bytes(room[: self._receive_all(room, flags)])
        return self._receive(_c_recv, len, bufsize, flags, bufsize)

    def recv_into(self, buffer: "WriteableBuffer", nbytes: int = 0, flags: int = 0) -> int:
        with memoryview(buffer) as view, view.cast("B") as room:
            size = _size_in(room, nbytes)
            if size == 0:
                return 0
            if flags & socket.MSG_WAITALL and self.gettimeout() is None:
                return self._receive_all(room[:size], flags)
            return self._receive(_c_recv_into, int, size, flags, room, size)

    def _receive(
        self,
        operation: Callable[..., T],
        count: Callable[[T], int],
        size: int,
        flags: int,
        *arguments: Any,
    ) -> T:
        """Receive at most `size` bytes by `operation`, and learn from how many it found."""
        hub = running_hub()
        watch = self._watch
        if hub is None or watch.timeout == 0.0 or flags:
            return self._retry(False, flags, operation, *arguments, flags | _AT_ONCE)
        hub.checkpoint()
        limit = self._limit()
        while True:
            if watch.readable:
                try:
                    found = operation(self, *arguments, _AT_ONCE)
                except BlockingIOError:
                    self._note_refusal(writing=False)
                else:
                    if count(found) < size and watch.infers and not watch.hung_up:
                        watch.readable = False  # empty for sure: saves a call that would raise
                    return found
            self._await_io(hub, False, limit)

    def _receive_now(self, bufsize: int) -> bytes | None:
        """Receive what is there, at most `bufsize` bytes; None if nothing is."""
        watch = self._watch
        if running_hub() is not None:
            self._checkpoint()
            if not watch.readable and watch.fd >= 0:
                return None
        try:
            found = _c_recv(self, bufsize, _AT_ONCE)
        except BlockingIOError:
            self._note_refusal(writing=False)
            return None
        if len(found) < bufsize and watch.infers and not watch.hung_up:
            watch.readable = False
        return found

    def _park(self, function: Callable[[], object]) -> bool:
        """Have a fiber of this hub run `function()` when there is something to receive.

        Until then no fiber waits. False if there may be something now. Only a fiber may call it.
        """
        hub = running_hub()
        return hub is not None and hub.park_watch(self._watch, function)

    def _resume_soon(self, function: Callable[[], object]) -> None:
        """Have a fiber of this hub run `function()` soon. Only a fiber may call it."""
        hub = running_hub()
        assert hub is not None
        hub.loop.awakened.append(function)

    def _resume_parked(self) -> None:
        """Have what is parked run now. In the thread of the hub."""
        if self._watch.parked is not None and self._watch.loop is not None:
            self._watch.loop.awaken(self._watch)

    def _unpark(self) -> bool:
        """Take away what is parked; false if it runs, or soon does. In the thread of the hub."""
        parked, self._watch.parked = self._watch.parked, None
        return parked is not None

    def send(self, data: "ReadableBuffer", flags: int = 0) -> int:
        self._flush_buffered()
        return self._retry(True, flags, _c_send, data, flags | _AT_ONCE)

    def sendall(self, data: "ReadableBuffer", flags: int = 0) -> None:
        if self._watch.buffered is not None:
            self._flush_buffered()
        hub = self._checkpoint()
        limit = self._limit()
        with flat_view(data) as left:
            done, size = 0, len(left)
            while True:
                try:
                    done += _c_send(self, left[done:] if done else left, flags | _AT_ONCE)
                    if done >= size:
                        return
                except BlockingIOError:
                    if self._may_not_wait(flags):
                        raise
                    self._note_refusal(writing=True)
                    self._await_io(hub, True, limit)
                else:
                    self._checkpoint()  # a peer that reads as fast may never let it wait

    # --- what both engines share ----------------------------------------------------------------

    def _limit(self) -> float | None:
        """When a call that begins now times out."""
        timeout = self.gettimeout()
        return None if timeout is None else time.monotonic() + timeout

    def _may_not_wait(self, flags: int) -> bool:
        """MSG_DONTWAIT has an effect where no timeout is set, as with `socket.socket`."""
        timeout = self.gettimeout()
        return timeout == 0.0 or (timeout is None and bool(flags & socket.MSG_DONTWAIT))

    def _receive_all(self, room: "bytearray | memoryview", flags: int) -> int:
        """Fill `room`, less only at the end: MSG_WAITALL, which the kernel ignores here."""
        done = 0
        with memoryview(room) as view:
            while done < len(view):
                count = self.recv_into(view[done:], 0, flags & ~socket.MSG_WAITALL)
                done += count
                if not count or flags & socket.MSG_PEEK:
                    break
        return done

    def _retry(self, writing: bool, flags: int, operation: Callable[..., T], *arguments: Any) -> T:
        """Repeat `operation`, with waits in between, for as long as it would block."""
        self._checkpoint()
        limit = self._limit()
        while True:
            try:
                return operation(self, *arguments)
            except BlockingIOError:
                if self._may_not_wait(flags):
                    raise
            self._wait(writing, limit)

    def settimeout(self, value: float | None, /) -> None:
        if value is not None:
            value = float(value)
            if not value >= 0.0:
                raise ValueError("Timeout value out of range")
        self._set_timeout(value)

    def setblocking(self, flag: bool, /) -> None:
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        return self.gettimeout() != 0.0

    @property
    def timeout(self) -> float | None:
        return self.gettimeout()

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, Any]:
        return self._retry(False, flags, _c_recvfrom, bufsize, flags | _AT_ONCE)

    def recvfrom_into(
        self, buffer: "WriteableBuffer", nbytes: int = 0, flags: int = 0
    ) -> tuple[int, Any]:
        return self._retry(False, flags, _c_recvfrom_into, buffer, nbytes, flags | _AT_ONCE)

    def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[bytes, list[Ancillary], int, Any]:
        return self._retry(False, flags, _c_recvmsg, bufsize, ancbufsize, flags | _AT_ONCE)

    def recvmsg_into(
        self, buffers: "Iterable[WriteableBuffer]", ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[int, list[Ancillary], int, Any]:
        return self._retry(
            False, flags, _c_recvmsg_into, list(buffers), ancbufsize, flags | _AT_ONCE
        )

    def sendto(self, data: "ReadableBuffer", *flags_and_address: Any) -> int:
        self._flush_buffered()
        flags = flags_and_address[0] if len(flags_and_address) == 2 else 0
        address = flags_and_address[-1:]
        return self._retry(True, flags, _c_sendto, data, flags | _AT_ONCE, *address)

    def sendmsg(self, buffers: "Iterable[ReadableBuffer]", *rest: Any) -> int:
        self._flush_buffered()
        flags = rest[1] if len(rest) > 1 else 0  # after the ancillary data
        ancillary = rest[0] if rest else ()
        call = (list(buffers), ancillary, flags | _AT_ONCE, *rest[2:])
        return self._retry(True, flags, _c_sendmsg, *call)

    def accept(self) -> tuple["FiberSocket", Any]:
        fd, address = self._retry(False, 0, _c_accept)
        os.set_blocking(fd, False)
        accepted = self._adopt(fd, self.family, self.type, self.proto)
        accepted.settimeout(socket.getdefaulttimeout())
        return accepted, address

    def connect(self, address: Any, /) -> None:
        """Connect. A look-up of a host name blocks the thread: `create_connection` does not."""
        code = self._connect(address)
        if code:
            raise OSError(code, os.strerror(code))

    def connect_ex(self, address: Any, /) -> int:
        try:
            return self._connect(address)
        except FiberTimeout:
            raise  # of a `Timeout` block around this
        except TimeoutError:
            return errno.EAGAIN

    def _connect(self, address: Any) -> int:
        limit = self._limit()
        code = super().connect_ex(address)
        if code not in _IN_PROGRESS or self.gettimeout() == 0.0:
            return code
        self._wait(True, limit)
        return self.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def _sendfile_use_sendfile(
        self, file: IO[bytes], offset: int = 0, count: int | None = None
    ) -> int:
        self._check_sendfile_params(file, offset, count)
        try:
            source = file.fileno()
            size = os.fstat(source).st_size
        except (AttributeError, io.UnsupportedOperation, OSError) as error:
            raise _private._GiveupOnSendfile(error) from error
        if not size:
            return 0
        self._flush_buffered()
        limit = self._limit()
        total = 0
        try:
            while count is None or total < count:
                block = _SENDFILE_BYTES if count is None else min(_SENDFILE_BYTES, count - total)
                sent = self._sendfile_once(source, offset + total, block, limit, total)
                if not sent:
                    break
                total += sent
            return total
        finally:
            if total > 0 and hasattr(file, "seek"):
                file.seek(offset + total)

    def _sendfile_once(
        self, source: int, offset: int, block: int, limit: float | None, total: int
    ) -> int:
        self._checkpoint()
        while True:
            try:
                return os.sendfile(self.fileno(), source, offset, block)
            except BlockingIOError:
                if self.gettimeout() == 0.0:
                    raise
                self._wait(True, limit)
            except OSError as error:
                if total == 0:
                    raise _private._GiveupOnSendfile(error) from error
                raise

    def __reduce_ex__(self, protocol: Any, /) -> Any:
        """As for `socket.socket`: refused, but `multiprocessing` may send it to another process."""
        reduction: Any = sys.modules.get("multiprocessing.reduction")
        if reduction is None or sys._getframe(1).f_globals is not vars(reduction):
            raise TypeError(f"cannot pickle {type(self).__name__!r} object")
        self._flush_buffered()
        self._mark_duplicated()
        return _rebuild, (type(self), reduction.DupFd(self.fileno()), self.gettimeout())

    def shutdown(self, how: int, /) -> None:
        self._flush_buffered()
        super().shutdown(how)

    def dup(self) -> Self:
        self._flush_buffered()  # before anything that the duplicate sends
        self._mark_duplicated()
        return super().dup()

    def detach(self) -> int:
        self._flush_buffered()
        self._mark_duplicated()
        timeout = self.gettimeout()
        self._release()
        fd = super().detach()
        if timeout is None and fd >= 0:
            os.set_blocking(fd, True)
        return fd

    def _real_close(self) -> None:
        self._release()
        super()._real_close()  # type: ignore[misc]


def _rebuild(cls: type[FiberSocket], duplicate: Any, timeout: float | None) -> FiberSocket:
    """In the process that receives it. Its descriptor shares its mode with the sender's."""
    sock = cls.adopt(int(duplicate.detach()))
    sock.settimeout(timeout)
    return sock
