"""The hand-over from one supervisor to the next: ``everserve run --replace``.

A supervisor listens on a socket whose name follows from its addresses. The next one asks there for the
listeners, has its workers accept from them, and only then has the first one drain: no connection is
refused meanwhile, as both have the same listeners. Connections that move go from the workers of the
first one to those of the next, over channels which the first one makes and sends along here.
"""

from __future__ import annotations

import hashlib
import os
import select
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from everserve.addresses import Address
from everserve.errors import WorkerError
from everserve.process.channel import Channel, Closed

__all__ = ["Control", "Predecessor"]

_PATIENCE = 10.0
"""Seconds in which a supervisor answers; it is never busy for long."""

_CREDENTIALS = struct.Struct("3i")  # unix(7), SO_PEERCRED: process, user, group


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Of the next supervisor: send the listeners."""


@dataclass(frozen=True, slots=True)
class _Given:
    """The listeners of these addresses come along, and at last the control socket."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Accepting:
    """Of the next supervisor: its workers accept, drain. To so many of them connections may move."""

    workers: int


@dataclass(frozen=True, slots=True)
class _Adopt:
    """The channel from one of the workers to the one that has the ``number`` comes along."""

    number: int


def _name_of(addresses: Sequence[str]) -> bytes:
    """An abstract name (unix(7)), which ends with its process, and has no file to be left."""
    texts = "\n".join(sorted(str(Address.parse(address)) for address in addresses))
    digest = hashlib.sha256(texts.encode()).hexdigest()[:32]
    return f"\0everserve/{os.getuid()}/{digest}".encode()


def _is_trusted(sock: socket.socket) -> bool:
    """True if the process at the other end is of this user, or of root."""
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _CREDENTIALS.unpack(found)[1] in (0, os.getuid())


class Predecessor:
    """The supervisor that serves at the same addresses, and what it has given.

    *Ownership*: the listeners and ``control``, its control socket, are the caller's.
    """

    def __init__(
        self,
        channel: Channel,
        listeners: Iterable[tuple[str, socket.socket]],
        control: socket.socket,
    ) -> None:
        self._channel = channel
        self._listeners = list(listeners)
        self.control = control

    def take(self, address: Address) -> socket.socket | None:
        """The listener of an address, once; ``None`` where it has none."""
        for given in self._listeners:
            if given[0] == str(address):
                self._listeners.remove(given)
                return given[1]
        return None

    @classmethod
    def find(cls, addresses: Sequence[str]) -> Predecessor | None:
        """Ask for its listeners; ``None`` if there is no supervisor at these addresses.

        Raises ``WorkerError`` for one that does not answer, or that is another user's.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(_name_of(addresses))
            if not _is_trusted(sock):
                raise WorkerError("the process that has the name of this server is another user's")
        except ConnectionRefusedError:
            sock.close()
            return None
        except BaseException:
            sock.close()
            raise
        channel = Channel(sock)
        channel.send(_Wanted(), wait=_PATIENCE)
        given, descriptors = _await(channel)
        *listeners, control = [socket.socket(fileno=one) for one in descriptors]
        return cls(channel, zip(given.addresses, listeners, strict=True), control)

    def release(self, workers: int) -> None:
        """Have it drain: the successor accepts. To so many of its workers connections may move."""
        self._channel.send(_Accepting(workers), wait=_PATIENCE)

    def fileno(self) -> int:
        """The descriptor to wait on, for ``read``."""
        return self._channel.fileno()

    def read(self, adopt: Callable[[int, int], object]) -> bool:
        """Call ``adopt(number, descriptor)`` for each channel of a worker that has come.

        The descriptor is closed after that. False if nothing more comes.
        """
        try:
            while (received := self._channel.receive()) is not None:
                message, descriptors = received
                if isinstance(message, _Adopt):
                    adopt(message.number, descriptors[0])
                for descriptor in descriptors:
                    os.close(descriptor)
        except Closed:
            return False
        return True

    def close(self) -> None:
        """Close the connection to it. Without ``release``, it goes on."""
        self._channel.close()


def _await(channel: Channel) -> tuple[_Given, list[int]]:
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    try:
        received = channel.receive() if poll.poll(_PATIENCE * 1000) else None
    except Closed:
        received = None
    if received is None:
        channel.close()
        raise WorkerError("the server to replace does not answer: another one may replace it now")
    given, descriptors = received
    return given, descriptors


class Control:
    """The socket at which a supervisor can be asked. *Ownership*: it owns its sockets.

    ``watch`` and ``unwatch`` are those of the supervisor's loop; ``release(workers)`` has it drain.
    """

    def __init__(self, sock: socket.socket, addresses: Sequence[str]) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._addresses = tuple(str(Address.parse(address)) for address in addresses)
        self._next: Channel | None = None

    @classmethod
    def open(cls, addresses: Sequence[str]) -> Control | None:
        """``None`` if the name is taken: then this server can only be stopped, not replaced."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.bind(_name_of(addresses))
            sock.listen()
        except OSError:
            sock.close()
            return None
        return cls(sock, addresses)

    def attach(
        self,
        listeners: Sequence[socket.socket],
        watch: Callable[[object, Callable[[], object]], object],
        unwatch: Callable[[object], object],
        release: Callable[[int], object],
    ) -> None:
        """Answer from now on."""
        self._listeners = listeners
        self._watch = watch
        self._unwatch = unwatch
        self._release = release
        watch(self._socket, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except OSError:
            return
        if self._next is not None or not _is_trusted(sock):
            sock.close()
            return
        self._next = Channel(sock)
        self._watch(self._next, self._read)

    def _read(self) -> None:
        channel = self._next
        if channel is None:
            return
        try:
            while (received := channel.receive()) is not None:
                self._obey(channel, received[0])
        except Closed:  # the next one has ended, or has all that it needs
            self._unwatch(channel)
            channel.close()
            self._next = None

    def _obey(self, channel: Channel, message: object) -> None:
        if isinstance(message, _Wanted):
            descriptors = [one.fileno() for one in (*self._listeners, self._socket)]
            channel.send(_Given(self._addresses), *descriptors)
        elif isinstance(message, _Accepting):
            self._unwatch(self._socket)
            self._socket.close()
            self._release(message.workers)

    def pass_on(self, number: int, descriptor: int) -> bool:
        """Send the next supervisor a channel from a worker, to its own that has the ``number``."""
        return self._next is not None and self._next.send(_Adopt(number), descriptor, wait=1.0)

    def close(self) -> None:
        """Close all sockets."""
        self._socket.close()
        if self._next is not None:
            with suppress(OSError):
                self._next.close()
