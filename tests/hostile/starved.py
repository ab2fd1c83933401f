"""A server with TLS and few descriptors, for ``test_descriptors``: ``starved.py STRATEGY CERT KEY``."""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
from collections import Counter

import everserve
from everserve.events import BackedOff, ServerEvent

events: Counter[str] = Counter()


class Upper(everserve.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


def record(event: ServerEvent) -> None:
    events[type(event).__name__] += 1
    if isinstance(event, BackedOff) and events["BackedOff"] == 1:
        print_line("BackedOff")


def print_line(what: object) -> None:
    print(json.dumps(what), flush=True)


def main(strategy: str, cert: str, key: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    tls = everserve.TLS(cert, key)
    server = everserve.make_server(Upper, "tcp://127.0.0.1:0", concurrency=strategy, tls=tls)
    server.subscribe(record)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with server.running() as address:
        resource.setrlimit(resource.RLIMIT_NOFILE, (48, hard))
        print_line(address)
        sys.stdin.readline()
    ended = sum(events[name] for name in ("Finished", "Failed", "Refused"))
    left = list(server.connections)
    del server
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd")) - before
    print_line(
        {"accepted": events["Accepted"], "ended": ended, "descriptors": descriptors + len(left)}
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
