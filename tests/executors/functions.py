"""Functions and handlers that run in other processes: they must be found there."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from everserve.messages import JSONRequestHandler, LineRequestHandler


class Demanding(Exception):
    """Cannot be unpickled: its constructor takes two arguments, and keeps one."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def double(message: Any) -> Any:
    """The message twice; or what its text asks for."""
    if message == b"several":
        return (b"%d" % number for number in range(3))
    if message == b"error":
        raise ValueError("no such message")
    if message == b"demanding":
        raise Demanding("too much", 1)
    if message == b"exit":
        raise SystemExit("out")
    if message == b"lambda":
        return lambda: None
    return message * 2


def process(_: object = None) -> bytes:
    """The process that runs it."""
    return b"%d" % os.getpid()


def end(status: int) -> bytes:
    """End the process in the middle of the call."""
    os._exit(status)


def signalled(number: int) -> bytes:
    """Send the own process a signal, and go on."""
    signal.raise_signal(number)
    return b"alive"


def sockets() -> bytes:
    """How many sockets the process has; its own pipe to the server is one, where it is no pipe."""
    found = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return b"%d" % sum(name.startswith("socket:") for name in found)


class Squares(LineRequestHandler[Any, Any]):
    """Squares numbers. The first run of a message ``FILE NUMBER`` writes its process, and waits."""

    @staticmethod
    def handle_message(line: bytes) -> bytes:
        *place, number = line.decode().split(" ")
        if place and not os.path.exists(place[0]):
            Path(f"{place[0]}.new").write_text(str(os.getpid()))
            os.rename(f"{place[0]}.new", place[0])
            time.sleep(60)
        return b"%d" % (int(number) ** 2)


class AgainSquares(Squares):
    """The same, where a message may be handled twice."""

    idempotent = True


class Twice(JSONRequestHandler[Any, Any]):
    """Handlers of datagrams and objects."""

    @staticmethod
    def handle_message(message: Any) -> Any:
        return double(message)
