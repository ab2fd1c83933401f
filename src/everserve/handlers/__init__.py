"""The request handlers: the classes that users subclass."""

from everserve.handlers.aio import AsyncStreamRequestHandler
from everserve.handlers.base import BaseRequestHandler
from everserve.handlers.datagram import DatagramRequestHandler
from everserve.handlers.session import DatagramSessionHandler
from everserve.handlers.stream import StreamRequestHandler

__all__ = [
    "AsyncStreamRequestHandler",
    "BaseRequestHandler",
    "DatagramRequestHandler",
    "DatagramSessionHandler",
    "StreamRequestHandler",
]
