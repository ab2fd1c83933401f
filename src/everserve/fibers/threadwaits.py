"""How a plain thread waits in the functions of `everserve.fibers`: what may end its wait early.

It stands below the waiters. A fiber needs none of it: its hub raises what ends a wait. A thread cannot
be interrupted while it waits in the kernel, so each of its waits ends at the nearest limit.
"""

import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from everserve.sockets.genuine import is_socket

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = [
    "LimitedSocket",
    "ThreadLimit",
    "check",
    "here",
    "may_end_early",
    "narrowed",
    "plain_socket",
    "poll_once",
    "serve",
    "unlimited",
    "wait",
]

_LONGEST_POLL: Final = 86_400.0  # seconds; poll(2) takes an int of milliseconds


class ThreadLimit(Protocol):
    """A `Timeout` block of this thread."""

    ends: float

    def expire(self) -> None:
        """Raise the exception of the block, whose time has passed."""


class Interruptible(Protocol):
    """A thread that `kill` may end where it waits."""

    notify: Callable[[], object] | None

    def raise_pending(self) -> None: ...


class _Here(threading.local):
    """What ends the waits of the present thread."""

    limits: tuple[ThreadLimit, ...] = ()
    spawned: Interruptible | None = None
    request: Callable[[], Any] | None = None  # a weak reference to the socket that it serves


here = _Here()


def serve(request: Any) -> None:
    """Note that this thread serves `request`: the limits of its blocks apply to that socket."""
    here.request = weakref.ref(request) if is_socket(request) else None


def may_end_early() -> bool:
    """Whether something may end a wait of this thread before its own time."""
    return bool(here.limits) or here.spawned is not None


@contextmanager
def unlimited() -> Iterator[None]:
    """Let the waits of this thread end by themselves alone, as a lock must be taken back."""
    limits, here.limits = here.limits, ()
    try:
        yield
    finally:
        here.limits = limits


def check() -> None:
    """Raise what is to end the waits of this thread, if there is something."""
    if here.spawned is not None:
        here.spawned.raise_pending()
    if here.limits:
        nearest = min(here.limits, key=_end)
        if time.monotonic() >= nearest.ends:
            nearest.expire()


def narrowed(limit: float | None) -> float | None:
    """The moment at which a wait until `limit` (None: for ever) must end; raises as `check`."""
    check()
    if not here.limits:
        return limit
    ends = min(here.limits, key=_end).ends
    return ends if limit is None else min(limit, ends)


def wait(notifier: threading.Event, timeout: float | None) -> None:
    """Wait for `notifier`, at most `timeout` seconds, and clear it; raises as `check`."""
    if here.spawned is not None:
        here.spawned.notify = notifier.set  # before the check: no kill is lost
    limit = narrowed(None if timeout is None else time.monotonic() + timeout)
    notifier.wait(None if limit is None else max(0.0, limit - time.monotonic()))
    notifier.clear()


def _end(limit: ThreadLimit) -> float:
    return limit.ends


class LimitedSocket(socket.socket):
    """A plain socket during a `Timeout` block of the thread that serves it.

    The block changes the class of the socket, not the socket: who holds it already is limited too.
    Other threads that use it meanwhile have no limit. The mode of the descriptor stays as it is.
    """

    __slots__ = ()

    def gettimeout(self) -> float | None:
        """The time limit of a wait that begins now; raises as `check`."""
        own = super().gettimeout()
        ends = narrowed(None)
        if ends is None or own == 0.0:
            return own
        left = max(1e-6, ends - time.monotonic())
        return left if own is None else min(own, left)

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        received: bytes = self._after_wait(False, flags, super().recv, bufsize)
        return received

    def recv_into(self, buffer: "WriteableBuffer", nbytes: int = 0, flags: int = 0) -> int:
        count: int = self._after_wait(False, flags, super().recv_into, buffer, nbytes)
        return count

    def send(self, data: "ReadableBuffer", flags: int = 0, /) -> int:
        count: int = self._after_wait(True, flags, super().send, data)
        return count

    def sendall(self, data: "ReadableBuffer", flags: int = 0, /) -> None:
        if not here.limits:
            super().sendall(data, flags)
            return
        left = memoryview(data).cast("B")
        while left:
            left = left[self.send(left, flags) :]

    def _after_wait(
        self, writing: bool, flags: int, transfer: Callable[..., Any], *arguments: Any
    ) -> Any:
        """Transfer bytes once the socket is ready for that, within the limits of this thread."""
        own = super().gettimeout()
        if not here.limits or own == 0.0:
            return transfer(*arguments, flags)
        own_end = None if own is None else time.monotonic() + own
        while True:
            if not poll_once(self.fileno(), writing, own_end):
                raise TimeoutError("timed out")
            try:
                return transfer(*arguments, flags | socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass  # another thread was first


def poll_once(fd: int, writing: bool, limit: float | None) -> bool:
    """Wait until `fd` is ready, as an ordinary socket does; False when `limit` has passed.

    Raises as `check`.
    """
    if fd < 0:
        return True  # the call that follows reports it
    limit = narrowed(limit)
    poll = select.poll()
    poll.register(fd, select.POLLOUT if writing else select.POLLIN)
    while True:
        left = None if limit is None else max(0.0, limit - time.monotonic())
        if poll.poll(None if left is None else min(left, _LONGEST_POLL) * 1e3):
            return True
        if left is not None and left <= _LONGEST_POLL:
            check()
            return False


def plain_socket(sock: Any) -> Any:
    """The plain socket that carries the bytes of `sock`, below the layers of everserve."""
    while (inner := getattr(type(sock), "inner", None)) is not None:
        sock = inner.__get__(sock)
    return sock
