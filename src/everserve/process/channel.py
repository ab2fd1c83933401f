"""Messages between the processes of one server: a Unix socket that keeps their boundaries.

The supervisor has one to each worker and to each template. Its end is also how either learns of the
death of the other: the kernel closes it.
"""

from __future__ import annotations

import os
import pickle
import select
import socket
from contextlib import suppress
from typing import Any

__all__ = ["Channel", "Closed"]

_LARGEST = 65_536
"""Bytes that go through the socket; what is larger goes as a file in memory (memfd_create(2))."""

_DESCRIPTORS = 253
"""Those that may come with a message (unix(7), SCM_MAX_FD)."""

_IN_MEMORY = b"\0"

_BUFFER = 1 << 20


class Closed(Exception):
    """The process at the other end has ended."""


class Channel:
    """One end. *Ownership*: it owns its socket. ``send`` and ``receive`` never wait."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.setblocking(False)
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Both ends."""
        first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(first), cls(second)

    @classmethod
    def of(cls, descriptor: int) -> Channel:
        """The end that came as a descriptor."""
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        """The descriptor to wait on: readable when there is a message, or when the other has ended."""
        return self._socket.fileno()

    def send(self, message: Any, *descriptors: int, wait: float = 0.0) -> bool:
        """Send ``message``, with ``descriptors``. False if it is lost: the other does not read."""
        data = pickle.dumps(message)
        memory = -1
        if len(data) > _LARGEST:
            memory = os.memfd_create("everserve", os.MFD_CLOEXEC)
            with open(memory, "wb", closefd=False) as file:
                file.write(data)
            data, descriptors = b"", (memory, *descriptors)
        try:
            return self._send(data or _IN_MEMORY, descriptors, wait)
        finally:
            if memory != -1:
                os.close(memory)

    def _send(self, data: bytes, descriptors: tuple[int, ...], wait: float) -> bool:
        try:
            if descriptors:
                socket.send_fds(self._socket, [data], descriptors)
            else:
                self._socket.send(data)
        except BlockingIOError:  # full
            return wait > 0 and self._is_writable(wait) and self._send(data, descriptors, 0.0)
        except OSError:  # the other has ended
            return False
        return True

    def _is_writable(self, wait: float) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        return bool(poll.poll(wait * 1000))

    def receive(self) -> tuple[Any, list[int]] | None:
        """The next message with its descriptors; ``None`` for none. Raises ``Closed``."""
        try:
            data, found, _, _ = socket.recv_fds(
                self._socket, 2 * _LARGEST, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        except ConnectionResetError:  # it left messages unread; those that it sent are still here
            return self.receive()
        except OSError:
            raise Closed from None
        if not data:
            raise Closed
        if data == _IN_MEMORY:
            with open(found.pop(0), "rb") as file:
                file.seek(0)
                data = file.read()
        return pickle.loads(data), found

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
