# cython: binding=False, annotation_typing=False
"""The outbox of a connection: what handlers reply and what others push leaves in order, and bounded.

One source for both engines: `_outbox` is this file, compiled, with the types of `_outbox.pxd`.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from everserve.errors import HubError
from everserve.fibers.engines import FiberSocket, current
from everserve.fibers.spawning import SpawnedThread
from everserve.fibers.sync import Event
from everserve.sockets.genuine import RealSocket

__all__ = ["Outbox"]

COMPILED = __name__ == "everserve.messages._outbox"

CLOSED, FULL, QUEUED, MINE = range(4)

_LOCK = threading.Lock()
"""Held by a step, in Python. In C a step is complete before another thread runs."""


class Outbox:
    """Sends over one socket, one message after the other, from any number of threads and fibers.

    Whoever sends goes on with what others add meanwhile. ``hub``: that of a ``FiberSocket``, else None.
    """

    __slots__ = ("_closed", "_hub", "_pending", "_room", "_sending", "_sock", "_then")

    def __init__(self, sock: Any, hub: Any) -> None:
        self._sock = sock
        self._hub = hub
        self._sending = False  # someone sends
        self._closed = False  # nothing more is sent
        self._pending: deque[bytes] | None = None
        self._room: Event | None = None  # set whenever there may be room, or nothing left to send
        self._then: Callable[[], object] | None = None  # called once nothing is left to send

    # -- for the conversation -----------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send a reply, after what was pushed before it, and wait until it is sent."""
        while not self._claim():
            if self._closed:
                raise BrokenPipeError("the connection is closed for writing")
            self._wait_while_sending()
        self._send_all(data)

    def close(self) -> None:
        """Take nothing more, and wait until all is sent."""
        self._closed = True
        while self._sending:
            self._wait_while_sending()

    # -- while its connection moves --------------------------------------------------------------

    def hold(self, then: Callable[[], object]) -> bool:
        """Have what others push wait, until ``release`` or ``take_held``. False if it is closed.

        Also false if someone sends: when that is over ``then()`` is called, in any thread. It may also
        be called though this has returned true.
        """
        while not self._claim():
            if self._closed:
                return False
            self._then = then
            if self._sending:
                return False
            self._then = None
        return True

    def release(self) -> None:
        """Undo ``hold``: what was pushed meanwhile is sent."""
        data = self._next()
        if data is not None:
            self._spawn_sender(data)

    def take_held(self) -> bytes:
        """Take nothing more. Returns what was pushed while it was held."""
        self._closed = True
        with _LOCK:
            pending, self._pending = self._pending, None
        self._sending = False
        if self._room is not None:
            self._room.set()
        return b"".join(pending or ())

    def hold_again(self, data: bytes) -> None:
        """Undo ``take_held``, which has returned ``data``."""
        self._sending = True
        self._pending = deque([data] if data else [])
        self._closed = False

    # -- for anyone ----------------------------------------------------------------------------

    def push(self, data: bytes, most: int, policy: str) -> bool:
        """Send soon. Where ``most`` messages wait, do as ``policy`` says. False if it is not sent.

        With any other policy than ``wait`` and ``drop-oldest`` it is dropped.
        """
        while True:
            found = self._add(data, most)
            if found == MINE:
                return self._send_now(data)
            if found != FULL:
                return found == QUEUED
            if policy == "wait":
                self._wait_for_room(most)
            elif policy == "drop-oldest":
                self._drop_oldest()
            else:
                return False

    @property
    def is_closed(self) -> bool:
        """True once nothing more is taken."""
        return bool(self._closed)

    # -- sending -------------------------------------------------------------------------------

    def _send_all(self, data: bytes | None) -> None:
        try:
            while data is not None:
                self._sock.sendall(data)
                data = self._next()
        except BaseException:
            self._give_up()
            raise

    def _send_now(self, data: bytes) -> bool:
        """Send what the kernel takes at once; leave the rest to a fiber or a thread of its own."""
        left: bytes | None = data
        try:
            while left is not None:
                left = self._send_some(left)
                if left:
                    self._spawn_sender(left)
                    return True
                left = self._next()
        except (OSError, RuntimeError):  # the connection has gone, or the system has no thread left
            self._give_up()
            return False
        return True

    def _send_some(self, data: bytes) -> bytes:
        """Send without waiting; returns what is left."""
        if type(self._sock) is not FiberSocket and type(self._sock) is not RealSocket:
            return data  # TLS: a send of it may have to wait
        try:
            return data[self._sock.send(data, socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            return data

    def _spawn_sender(self, data: bytes) -> None:
        if self._hub is None:
            SpawnedThread(self._send_quietly, (data,))
        else:
            self._hub.spawn(self._send_quietly, data)

    def _send_quietly(self, data: bytes) -> None:
        """Send all that is there; an error is reported where the connection is read."""
        try:
            self._send_all(data)
        except OSError:
            pass

    # -- steps: no other thread sees one half done ------------------------------------------------

    def _claim(self) -> bool:
        """Be the one who sends; false if someone is."""
        if COMPILED:
            return _claim(self)
        with _LOCK:
            return _claim(self)

    def _add(self, data: bytes, most: int) -> int:
        """Add to what is sent, or be the one who sends it: ``MINE``."""
        if COMPILED:
            return _add(self, data, most)
        with _LOCK:
            return _add(self, data, most)

    def _next(self) -> bytes | None:
        """What to send next. ``None``: nothing, and no one sends any more."""
        if COMPILED:
            data = _next(self)
        else:
            with _LOCK:
                data = _next(self)
        if self._room is not None:
            self._room.set()
        if data is None and self._then is not None:
            self._call_then()
        return data

    def _call_then(self) -> None:
        then, self._then = self._then, None
        if then is not None:
            then()

    def _drop_oldest(self) -> None:
        with _LOCK:
            if self._pending:
                self._pending.popleft()

    def _give_up(self) -> None:
        """Send nothing more: what others add fails."""
        self._closed = True
        self._pending = None
        self._sending = False
        if self._room is not None:
            self._room.set()
        if self._then is not None:
            self._call_then()

    # -- waits ---------------------------------------------------------------------------------

    def _event(self) -> Event:
        with _LOCK:
            if self._room is None:
                self._room = Event()
            return self._room

    def _wait_while_sending(self) -> None:
        event = self._event()
        event.clear()  # before the test: what comes after it sets it again
        if self._sending:
            event.wait()

    def _wait_for_room(self, most: int) -> None:
        event = self._event()
        event.clear()
        pending = self._pending
        if self._sending and pending is not None and len(pending) >= most:
            if self._hub is not None and self._hub.is_here() and current() is None:
                raise HubError(
                    "the outbox is full, and only a fiber or another thread can wait for it: in a"
                    " coroutine, await asyncio.to_thread(handler.push, message)"
                )
            event.wait()


def _claim(outbox: Outbox) -> bool:
    if outbox._sending or outbox._closed:
        return False
    outbox._sending = True
    return True


def _add(outbox: Outbox, data: bytes, most: int) -> int:
    if outbox._closed:
        return CLOSED
    if not outbox._sending:
        outbox._sending = True
        return MINE
    if outbox._pending is None:
        outbox._pending = deque()
    if len(outbox._pending) >= most:
        return FULL
    outbox._pending.append(data)
    return QUEUED


def _next(outbox: Outbox) -> bytes | None:
    if outbox._pending:
        data: bytes = outbox._pending.popleft()
        return data
    outbox._sending = False
    return None
