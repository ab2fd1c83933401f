"""What a codec is: messages out of the bytes of a stream, and bytes out of messages.

The message handlers decode and encode by one. A codec keeps nothing of a stream: its caller keeps the
bytes that are not a whole message yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["Codec", "decode_many", "encode_many", "is_several", "missing"]


class Codec(Protocol):
    """Cuts a stream into messages. Inherit it, or write a class of the same two methods.

    Three more methods are used where a codec has them, to be faster: ``decode_many(data, start, most)``
    and ``encode_many(messages)``, as the functions of this module, and ``missing(data, start)``: how
    many bytes more the message at ``start`` needs at least. Where ``of_bytes`` is true, each message is
    bytes-like, so that a list is a reply of several messages. ``ending``: what a datagram may lack.
    """

    def decode(self, data: bytes, start: int, /) -> tuple[Any, int] | None:
        """The message that begins at ``data[start]``, and the place where the next one begins.

        ``None`` if ``data`` ends before the message does. Raises ``FrameError`` for bytes that are no
        message, and as soon as they say, or show, that the message is too long; its ``resumes_at`` is
        set where the next message can be found.
        """

    def encode(self, message: Any, /) -> bytes:
        """The bytes of a message. Raises ``TypeError`` or ``ValueError`` for what is none."""


def decode_many(codec: Any, data: bytes, start: int, most: int) -> tuple[list[Any], int]:
    """The messages from ``data[start]`` on, at most so many, and the place after them.

    Raises ``FrameError`` only for the first one: messages before a bad one are returned.
    """
    own = getattr(codec, "decode_many", None)
    if own is not None:
        found: tuple[list[Any], int] = own(data, start, most)
        return found
    return decode_each(codec, data, start, most)


def decode_each(codec: Codec, data: bytes, start: int, most: int) -> tuple[list[Any], int]:
    """As ``decode_many``, a message at a time."""
    messages: list[Any] = []
    while len(messages) < most:
        try:
            found = codec.decode(data, start)
        except ValueError:  # FrameError is one; it is raised again if the caller comes back for it
            if messages:
                break
            raise
        if found is None:
            break
        message, start = found
        messages.append(message)
    return messages, start


def encode_many(codec: Any, messages: Sequence[Any]) -> bytes:
    """The bytes of all ``messages``, in order."""
    own = getattr(codec, "encode_many", None)
    if own is not None:
        encoded: bytes = own(messages)
        return encoded
    return b"".join([codec.encode(message) for message in messages])


def missing(codec: Any, data: bytes, start: int) -> int:
    """How many bytes more the message at ``start`` needs at least."""
    own = getattr(codec, "missing", None)
    return 1 if own is None else max(1, own(data, start))


def is_several(codec: Any, reply: Any) -> bool:
    """True for a reply of several messages: an iterator, or a list where messages are bytes."""
    if hasattr(reply, "__next__"):
        return True
    return bool(getattr(codec, "of_bytes", False)) and isinstance(reply, list | tuple)
