"""The server of a campaign: a process whose kernel fails now and then, by ``faults.c``.

Run as ``python -m tests.chaos.served STRATEGY SCHEME FOLDER [CERT KEY]``, the library preloaded. It
obeys lines on its standard input, and answers each with a line of JSON.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import sys
from collections import Counter
from typing import Any

import everserve
from everserve.events import Accepted, Failed, Finished, Refused, ServerEvent

GRACE = 5.0


class Upper(everserve.StreamRequestHandler[Any, Any]):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


class UpperDatagram(everserve.DatagramRequestHandler[Any, Any]):
    def handle(self) -> None:
        self.wfile.write(self.rfile.read().upper())


class Serving:
    """A server in the background, and what it has emitted."""

    def __init__(self, strategy: str, scheme: str, folder: str, *pair: str) -> None:
        self.faults = ctypes.CDLL(None)
        self.emitted: list[type[ServerEvent]] = []  # by any thread: an append is one step
        address = f"{scheme}:{folder}/server" if "unix" in scheme else f"{scheme}://127.0.0.1:0"
        options: dict[str, Any] = {"tls": everserve.TLS(*pair)} if scheme == "tls" else {}
        handler: Any = UpperDatagram if scheme in ("udp", "unixgram") else Upper
        if handler is Upper:
            options["write_timeout"] = 10.0
        self.server: Any = everserve.make_server(handler, address, concurrency=strategy, **options)
        own = os.getpid()
        self.server.subscribe(lambda event: self.record(event) if os.getpid() == own else None)
        self.running = self.server.running(grace=GRACE)

    def record(self, event: ServerEvent) -> None:
        self.emitted.append(type(event))

    def start(self) -> Any:
        return self.running.__enter__()

    def arm(self, seed: int, one_in: int, most: int, function: str = "") -> bool:
        self.faults.chaos_arm(
            ctypes.c_uint64(seed), ctypes.c_uint(one_in), most, ctypes.c_char_p(function.encode())
        )
        return True

    def disarm(self) -> int:
        return int(self.faults.chaos_disarm())

    def end(self) -> dict[str, Any]:
        """Stop; what is left then."""
        report = self.server.stop(GRACE)
        self.running.__exit__(None, None, None)
        counts = Counter(self.emitted)
        ended = counts[Finished] + counts[Failed] + counts[Refused]
        return {
            "accepted": counts[Accepted],
            "ended": ended,
            "unfinished": len(report.unfinished),
            "state": self.server.state.name,
        }


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def main(*arguments: str) -> None:
    logging.basicConfig(level=logging.INFO)
    before = descriptors()
    serving = Serving(*arguments)
    print(json.dumps(serving.start()), flush=True)
    for line in sys.stdin:
        command, *values = json.loads(line)
        answer = getattr(serving, command)(*values)
        if command == "end":
            del serving
            answer["descriptors"] = descriptors() - before
        print(json.dumps(answer), flush=True)
        if command == "end":
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
