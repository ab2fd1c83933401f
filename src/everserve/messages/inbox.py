"""The inbox of a connection: it receives, decodes, and has each message handled. The reference.

A conversation has one; `_inbox.pyx` is the same, compiled.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

from everserve.errors import FrameError
from everserve.wire.codec import decode_many, missing

__all__ = ["Inbox"]

READ_BYTES: Final = 65536
"""Bytes that one read may find."""

LONGEST_READ: Final = 1 << 20
"""Bytes of a read of a long message, of which so many are missing at least."""


class Inbox:
    """What has come over one socket, and is not handled yet.

    ``hub``: that of a ``FiberSocket``, else None. ``parking``: where the connection may wait while
    nothing is there; None where its thread or fiber waits. ``rest``: the parts of a message that is not
    whole, of which ``needed`` bytes are missing.
    """

    __slots__ = ("hub", "needed", "parking", "rest", "sock")

    def __init__(self, sock: Any, hub: Any, parking: Any) -> None:
        self.sock = sock
        self.hub = hub
        self.parking = parking
        self.rest: list[bytes] | None = None
        self.needed = 0

    def unread(self) -> tuple[bytes | None, int]:
        """The part of a message that has come, and how many bytes are missing at least."""
        return None if self.rest is None else b"".join(self.rest), self.needed

    def take_unread(self, rest: bytes | None, needed: int) -> None:
        """Go on with what ``unread`` of another inbox has returned."""
        self.rest = None if rest is None else [rest]
        self.needed = needed

    def serve(self, handler: Any, replies: Any, handle: Callable[[Any], Any]) -> bool | None:
        """Handle what comes. False at the end of the stream.

        Otherwise nothing is there, and the connection may be parked: true if a message, or a part of
        one, has come before; else None.
        """
        served = None
        while True:
            data = self.receive()
            if data is None:
                return served
            if not data:
                if self.rest is not None:
                    refuse(handler, FrameError("the stream ended inside a message"), replies)
                return False
            if not self.take(data, handler, replies, handle):
                return False
            served = True

    def receive(self) -> bytes | None:
        """What has come, ``b""`` at the end; ``None`` if it can be parked, and nothing is there."""
        size = READ_BYTES if self.needed < READ_BYTES else min(self.needed, LONGEST_READ)
        data: bytes | None
        if self.parking is None:
            data = self.sock.recv(size)
        elif self.hub is not None:
            data = self.sock._receive_now(size)
        else:
            try:
                # With a timeout, Python waits for it before the call, whatever its flags say.
                if self.sock.gettimeout() is not None and not self.parking.has_news(self.sock):
                    raise BlockingIOError
                data = self.sock.recv(size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                data = self.sock.recv(size) if self.parking.linger(self.sock) else None
        return data

    def take(self, data: bytes, handler: Any, replies: Any, handle: Callable[[Any], Any]) -> bool:
        """Handle the messages that are whole. False if the rest of the stream cannot be read."""
        if self.rest is not None:
            self.rest.append(data)
            self.needed -= len(data)
            if self.needed > 0:
                return True
            data = b"".join(self.rest)
            self.rest = None
            self.needed = 0
        codec = handler.codec
        start = 0
        depth = handler.pipeline_depth
        while start < len(data):
            try:
                messages, end = decode_many(codec, data, start, depth)
            except FrameError as error:
                resumes_at = refuse(handler, error, replies)
                if resumes_at is None:
                    return False
                start = resumes_at
                continue
            if not messages:
                self.rest = [data[start:] if start else data]
                self.needed = missing(codec, data, start)
                return True
            start = end
            replies.answer(messages, handle)
            if replies.stopped:
                self.rest = [data[start:]]  # where it goes on later, this is next
                return False
        return True


def refuse(handler: Any, error: FrameError, replies: Any) -> int | None:
    """Have the handler decide about bytes that are no message."""
    replies.add(handler.on_bad_message(error))
    replies.flush()
    return error.resumes_at
