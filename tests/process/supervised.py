"""A server with workers, as a process of its own, for the tests to kill and to signal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

from tests.clients import LIMIT, connect

HANDLER = """
import logging, os, threading, everserve

VERSION = "one"

class Answer(everserve.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            word = line.decode().strip()
            if word == "spin":
                while True:
                    pass
            if word == "stop":
                threading.Thread(target=self.server.stop, args=(1.0,)).start()
                return
            if word == "log":
                logging.warning("here")
            if word == "crash":
                os._exit(7)
            limit = self.server.max_connections
            self.wfile.write(f"{os.getpid()} {VERSION} {limit} {self.server.draining}\\n".encode())
"""


class Client:
    """A connection to a handler that answers each line."""

    def __init__(self, address: Any) -> None:
        self.socket = connect(address)
        self.file = self.socket.makefile("rb")

    def ask(self, word: str = "who") -> list[str]:
        """The words of the answer; none at the end of the connection."""
        try:
            self.socket.sendall(word.encode() + b"\n")
            return self.file.readline().decode().split()
        except ConnectionError:
            return []

    def say(self, word: str) -> None:
        self.socket.sendall(word.encode() + b"\n")

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Supervised:
    """The process of a supervisor, with what it has written so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.errors: list[str] = []
        self.lines: list[str] = []
        self.port = 0
        self._readers = [
            Thread(target=self._read, args=(process.stdout, self.lines), daemon=True),
            Thread(target=self._read, args=(process.stderr, self.errors), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream: Any, lines: list[str]) -> None:
        lines.extend(iter(stream.readline, ""))  # each, as it comes

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    def await_line(self, pattern: str, *, errors: bool = False, after: int = 0) -> str:
        """The first line that has ``pattern``, once it is there."""
        lines = self.errors if errors else self.lines

        def found() -> str | None:
            line = next((line for line in lines[after:] if re.search(pattern, line)), None)
            assert line or self.process.poll() is None, (pattern, self.lines, self.errors)
            return line

        return str(until(found, lambda: f"{pattern} in {self.lines} {self.errors}"))

    def await_ready(self) -> None:
        """Wait until it serves."""
        self.await_line("press Ctrl-C")
        found = re.search(r":(\d+)(;|$)", self.await_line("listening on"))
        self.port = int(found[1]) if found else 0

    def client(self) -> Client:
        return Client(self.address)

    def ask(self, word: str = "who") -> list[str]:
        with self.client() as client:
            return client.ask(word)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and wait for the end."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        status = self.process.wait(LIMIT)
        for reader in self._readers:
            reader.join(LIMIT)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return status


def until(condition: Callable[[], Any], why: Callable[[], str] = lambda: "") -> Any:
    """What ``condition`` returns, once that is true: other processes have no event to wait for."""
    end = monotonic() + LIMIT
    while not (value := condition()):
        assert monotonic() < end, why()
        sleep(0.01)
    return value


def unique(folder: str | Path) -> tuple[str, ...]:
    """Addresses that no other server has, so that one is replaced by them."""
    return "--bind", "tcp://127.0.0.1:0", "--bind", f"unix:{folder}/socket"


def start(
    folder: Path,
    *arguments: str,
    workers: int = 2,
    handler: str = HANDLER,
    levels: bool = True,
) -> Supervised:
    """``everserve run --workers``, which has not begun yet."""
    file = folder / "answer.py"
    file.write_text(handler)
    bind = () if "--bind" in arguments else ("--bind", "tcp://127.0.0.1:0")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "everserve", "run", f"{file}:Answer"),
            *("--workers", str(workers), "--grace", "10"),
            *(("--log-level", "info") if levels else ()),
            *bind,
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return Supervised(process)


@contextmanager
def supervised(
    folder: Path, *arguments: str, ready: bool = True, **options: Any
) -> Iterator[Supervised]:
    """The same, from its first lines to its end."""
    server = start(folder, *arguments, **options)
    with server.process:
        try:
            if ready:
                server.await_ready()
            yield server
        finally:
            server.process.kill()


def has_ended(pid: int) -> bool:
    """True once the process is gone, or is only left to be collected."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"


def await_end(pid: int) -> None:
    until(lambda: has_ended(pid), lambda: f"{pid} still runs")
