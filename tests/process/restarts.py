"""Requests while the workers of a server are replaced: how many are lost.

``python -m tests.process.restarts --rate 2000 --restarts 20``: each request has its own connection.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from tests.process.supervised import Client, Supervised, start, supervised, unique

__all__ = ["Load", "replace", "restart"]

_CLIENTS = 16


@dataclass
class Load:
    """Clients that send requests at an even rate until the block ends."""

    address: tuple[str, int]
    rate: float
    done: int = 0
    lost: list[str] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._ended = threading.Event()
        self._began = monotonic()
        self._threads = [threading.Thread(target=self._send) for _ in range(_CLIENTS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self.seconds = monotonic() - self._began

    def _send(self) -> None:
        due = monotonic()
        while not self._ended.is_set():
            due += _CLIENTS / self.rate
            sleep(max(0.0, due - monotonic()))
            try:
                with Client(self.address) as client:
                    if len(client.ask()) != 4:
                        self.lost.append("no answer")
            except OSError as error:
                self.lost.append(repr(error))
            self.done += 1


def restart(server: Supervised, times: int) -> None:
    """Replace the workers so often, each time once the ones before accept."""
    for _ in range(times):
        before = {server.ask()[0] for _ in range(4)}
        server.send(signal.SIGHUP)
        while server.ask()[0] in before:
            sleep(0.05)


def replace(
    folder: Path, server: Supervised, times: int, *arguments: str, **options: Any
) -> Supervised:
    """Replace the supervisor so often, each time by one that takes its listeners."""
    for _ in range(times):
        new = start(folder, *arguments, "--replace", **options)
        new.await_ready()
        server.await_line("stopped")
        assert server.wait() == 0, server.errors
        server = new
    return server


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=2000)
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--replace", action="store_true", help="replace the supervisor too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, supervised(Path(name), *unique(name)) as server:
        with Load(server.address, given.rate) as load:
            if given.replace:
                server = replace(Path(name), server, given.restarts, *unique(name))
            else:
                restart(server, given.restarts)
        server.end()
    rate = load.done / load.seconds
    print(
        f"{load.done} requests, {rate:.0f} a second, {given.restarts} restarts: {len(load.lost)} lost"
    )
    print(*load.lost[:10], sep="\n")


if __name__ == "__main__":
    main()
