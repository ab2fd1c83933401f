"""Prints the files that one connection passes through, in the order in which it first enters them.

``python trace.py fibers``: TCP on fibers. ``python trace.py threads``: TLS in threads, with the files
of ``Certificates`` in the working folder. Run it with ``EVERSERVE_ENGINE=python``: compiled code is not
traced.
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import everserve
from everserve.fibers.fiber import Fiber

SOURCE = Path(everserve.__file__).parent
LIMIT = 20.0
LAST = "process_request_thread"


class Upper(everserve.StreamRequestHandler):
    timeout = LIMIT

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


class Recorder:
    """Notes each file when a thread first enters it.

    It begins where the accept loop begins, and ends for a thread when it returns from one of ``last``.
    """

    def __init__(self, *last: str) -> None:
        self.last = last
        self.request_ended = threading.Event()
        self.files: dict[int, list[str]] = {}
        self.ended: set[int] = set()

    def profile(self, frame: FrameType, event: str, _: Any) -> None:
        here = threading.get_ident()
        if here in self.ended:
            return
        if event == "call":
            self.called(here, frame)
        elif event == "return" and here in self.files and frame.f_code.co_name in self.last:
            self.ended.add(here)
            if frame.f_code.co_name == LAST:
                self.request_ended.set()

    def called(self, thread: int, frame: FrameType) -> None:
        name = name_of(frame)
        if not self.files and (name, frame.f_code.co_name) == ("server/acceptloop.py", "run"):
            self.files[thread] = [name for f in reversed([*callers(frame)]) if (name := name_of(f))]
        elif self.files and (name, frame.f_code.co_name) == ("concurrency/threads.py", "run"):
            self.files[thread] = [name]
        elif thread in self.files and name:
            files = self.files[thread]
            if name not in files:
                files.append(name)


def name_of(frame: FrameType) -> str:
    """The file of the frame, if it is one of everserve."""
    file = Path(frame.f_code.co_filename)
    return str(file.relative_to(SOURCE)) if file.is_relative_to(SOURCE) else ""


def callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def main(strategy: str) -> None:
    """Serve one connection, and print its way."""
    accept_loop_ends = ["take_many"] if strategy == "threads" else []
    recorder = Recorder(LAST, *accept_loop_ends)
    execute = Fiber.execute

    def profiled(fiber: Fiber) -> None:
        sys.setprofile(recorder.profile)  # each greenlet has its own
        execute(fiber)

    Fiber.execute = profiled  # type: ignore[method-assign]
    server = make_server(strategy)
    server.subscribe(lambda event: None)
    threading.setprofile(recorder.profile)
    with server.running() as address:
        talk(strategy, address)
        assert recorder.request_ended.wait(LIMIT)
    threading.setprofile(None)
    print("\n".join(dict.fromkeys(name for files in recorder.files.values() for name in files)))


def make_server(strategy: str) -> Any:
    if strategy == "fibers":
        return everserve.make_server(Upper, "tcp://127.0.0.1:0", concurrency="fibers")
    tls = everserve.TLS("server.pem", "server.key")
    return everserve.make_server(Upper, "tls://127.0.0.1:0", concurrency="threads", tls=tls)


def talk(strategy: str, address: Any) -> None:
    with socket.create_connection(address, LIMIT) as client:
        if strategy == "fibers":
            converse(client)
            return
        context = ssl.create_default_context(cafile="authority.pem")
        with context.wrap_socket(client, server_hostname="localhost") as secure:
            converse(secure)


def converse(client: socket.socket) -> None:
    client.sendall(b"hello\n")
    assert client.recv(100) == b"HELLO\n"


if __name__ == "__main__":
    main(sys.argv[1])
