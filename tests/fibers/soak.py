"""A soak test: very many short connections to a server with fibers, and a count of what they leak.

Run it by hand: `python tests/fibers/soak.py --count 1000000`. Each connection sends, is answered, and
is reset. The load generator of the benchmarks makes them if it has been built (a minute for a million
on a quiet machine), else this program. The exit status is 1 if something grew.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOAD = Path(__file__).resolve().parents[2] / "benchmarks" / "bin" / "load"
WARM = 2000  # connections before the first census: caches and spare greenlets are filled
GROWTH = 1024  # KiB by which the allocator may differ
RESET = b"\1\0\0\0" + bytes(4)  # SO_LINGER of 0


def census() -> dict[str, int]:
    """The resources of this process: KiB of memory, descriptors, greenlets, objects."""
    import greenlet  # noqa: PLC0415  (in the server only)

    gc.collect()
    objects = gc.get_objects()
    return {
        "kib": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        >> 10,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "greenlets": sum(isinstance(found, greenlet.greenlet) for found in objects),
        "objects": len(objects),
    }


def serve() -> None:
    """The server: prints its port, then a census at each SIGUSR1, until SIGTERM."""
    import everserve  # noqa: PLC0415  (read EVERSERVE_ENGINE in the server only)

    class Echo(everserve.StreamRequestHandler):
        def handle(self) -> None:
            while data := self.request.recv(65536):
                self.request.sendall(data)

    def report(*_signal: Any) -> None:
        print(json.dumps({"open": len(server.connections), **census()}), flush=True)

    signal.signal(signal.SIGUSR1, report)
    signal.signal(signal.SIGTERM, lambda *_signal: os._exit(0))
    knobs = {"request_queue_size": 4096}
    with type("Server", (everserve.FiberTCPServer,), knobs)(("127.0.0.1", 0), Echo) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


def connect(port: int, count: int) -> int:
    """Make some `count` connections, fewer on a busy machine; returns how many were made."""
    if not LOAD.exists():
        return _connect_one_by_one(port, count)
    seconds = str(min(10.0, max(0.5, count / 20_000)))
    options = f"--connections 64 --bytes 128 --port {port} --warmup 0 --seconds {seconds}"
    found = subprocess.run(
        [LOAD, "connect", *options.split()], capture_output=True, text=True, check=True
    )
    result = json.loads(found.stdout)
    if result["errors"]:
        raise SystemExit(f"the load failed: {result['first_error']}")
    return int(result["messages"])


def _connect_one_by_one(port: int, count: int) -> int:
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            peer.sendall(b"x" * 128)
            peer.recv(128)
    return count


def last_census(server: subprocess.Popen[str]) -> dict[str, int]:
    """A census when the last resets have arrived."""
    assert server.stdout is not None
    found: dict[str, int] = {}
    for _ in range(100):
        server.send_signal(signal.SIGUSR1)
        found = json.loads(server.stdout.readline())
        if not found.pop("open"):
            break
        time.sleep(0.05)
    return found


def rows(server: subprocess.Popen[str], count: int) -> Iterator[dict[str, int]]:
    """Censuses, each with the number of connections so far."""
    assert server.stdout is not None
    port = int(server.stdout.readline())
    done = 0
    while done < WARM:
        done += connect(port, WARM - done)
    while True:
        yield {"connections": done, **last_census(server)}
        if done >= count:
            return
        done += connect(port, min(200_000, count - done))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="connections (default: 20,000)")
    parser.add_argument("--engine", choices=("auto", "native", "python"), default="auto")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return 0
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "EVERSERVE_ENGINE": options.engine},
    )
    try:
        found = []
        for row in rows(server, options.count):
            found.append(row)
            print("  ".join(f"{value:>10,} {name}" for name, value in row.items()), flush=True)
    finally:
        server.terminate()
        server.wait()
    first, last = found[0], found[-1]
    same = last["descriptors"] == first["descriptors"]
    steady = last["greenlets"] <= first["greenlets"] + 256 and last["kib"] <= first["kib"] + GROWTH
    print("nothing grew" if same and steady else "SOMETHING GREW")
    return 0 if same and steady else 1


if __name__ == "__main__":
    raise SystemExit(main())
