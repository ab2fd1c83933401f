"""Message handlers: a method for each message, connections that wait for nothing, and channels."""

from everserve.messages.channel import Channel
from everserve.messages.codecs import Codec, JSONLines, Lengths, Lines, Netstrings
from everserve.messages.handler import (
    FrameRequestHandler,
    JSONRequestHandler,
    LineRequestHandler,
    MessageRequestHandler,
)

__all__ = [
    "Channel",
    "Codec",
    "FrameRequestHandler",
    "JSONLines",
    "JSONRequestHandler",
    "Lengths",
    "LineRequestHandler",
    "Lines",
    "MessageRequestHandler",
    "Netstrings",
]
