"""Devices that stay connected while the workers of a server are replaced: what each of them notices.

``python -m tests.process.fleet --devices 5000 --deploys 20``: each sends a line a second, and checks
the answers. ``--replace`` replaces the supervisor too.
"""

from __future__ import annotations

import argparse
import re
import resource
import select
import signal
import socket
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

from tests.clients import LIMIT
from tests.process.restarts import replace
from tests.process.supervised import Supervised, supervised, unique, until

__all__ = ["DEVICE", "Fleet", "deploy"]

DEVICE = """
import os, everserve

class Answer(everserve.LineRequestHandler):
    handover = True
    count = 0
    moves = 0

    def on_moved(self):
        self.moves += 1

    def handle_message(self, line):
        self.count += 1
        return b"%s %d %d %d" % (line, self.count, self.moves, os.getpid())
"""
"""Answers a number with the count of messages of its connection, of its moves, and its process."""


@dataclass(slots=True)
class Device:
    """One connection, and how far it is: ``sent`` and ``answered`` are numbers of messages."""

    sock: socket.socket
    sent: int = 0
    answered: int = 0
    since: float = 0.0
    worst: float = 0.0  # the longest wait for an answer since it was last looked at
    moves: int = 0
    worker: bytes = b""
    rest: bytes = b""


@dataclass
class Fleet:
    """Connections that send a line each ``interval`` seconds until the block ends.

    A device sends its next line when the one before was answered. ``faults``: what is not as it should
    be: a reset, a message that is lost, doubled or out of order.
    """

    address: tuple[str, int]
    devices: int
    interval: float = 1.0
    faults: list[str] = field(default_factory=list)
    answers: int = 0

    def __enter__(self) -> Fleet:
        self._epoll = select.epoll()
        self._fleet: dict[int, Device] = {}
        for _ in range(self.devices):
            sock = socket.create_connection(self.address, timeout=LIMIT)
            sock.setblocking(False)
            self._fleet[sock.fileno()] = Device(sock)
            self._epoll.register(sock, select.EPOLLIN)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        for device in self._fleet.values():
            device.sock.close()
        self._epoll.close()

    def moved(self, times: int) -> int:
        """How many devices have been answered after so many moves."""
        return sum(device.moves >= times for device in tuple(self._fleet.values()))

    def await_answers(self) -> None:
        """Wait until each device was answered: up to then a connection may be in the kernel's queue."""
        until(lambda: all(device.answered for device in tuple(self._fleet.values())))

    def workers(self) -> set[bytes]:
        """The processes that have answered last."""
        return {device.worker for device in tuple(self._fleet.values())}

    def take_worst(self) -> list[float]:
        """The longest wait of each device since the last call, in seconds."""
        worst = []
        for device in tuple(self._fleet.values()):
            worst.append(device.worst)
            device.worst = 0.0
        return worst

    def _run(self) -> None:
        order = list(self._fleet.values())
        began, sent = monotonic(), 0
        pause = self.interval / max(1, len(order))
        while not self._ended.is_set():
            now = monotonic()
            while began + sent * pause <= now:
                self._send(order[sent % len(order)], now)
                sent += 1
            self._answer(max(0.0, began + sent * pause - now))
        end = monotonic() + LIMIT
        while any(device.answered < device.sent for device in order) and monotonic() < end:
            self._answer(0.1)
        self.faults.extend(
            f"lost: {device.sent - device.answered} messages"
            for device in order
            if device.answered < device.sent
        )

    def _send(self, device: Device, now: float) -> None:
        if device.answered < device.sent:
            return
        device.sent += 1
        device.since = now
        with suppress(OSError):  # the answer will be missing
            device.sock.send(b"%d\n" % device.sent)

    def _answer(self, timeout: float) -> None:
        for descriptor, _ in self._epoll.poll(timeout):
            device = self._fleet[descriptor]
            try:
                data = device.sock.recv(65536)
            except OSError as error:
                self._fail(device, repr(error))
                continue
            if not data:
                self._fail(device, "the server has ended the connection")
            *lines, device.rest = (device.rest + data).split(b"\n")
            for line in lines:
                self._check(device, line)

    def _fail(self, device: Device, what: str) -> None:
        self.faults.append(what)
        self._epoll.unregister(device.sock)

    def _check(self, device: Device, line: bytes) -> None:
        number, count, moves, device.worker = line.split()
        device.answered += 1
        device.moves = int(moves)
        self.answers += 1
        device.worst = max(device.worst, monotonic() - device.since)
        if not device.answered == int(number) == int(count) == device.sent:
            self.faults.append(f"{line!r} instead of {device.answered}, sent {device.sent}")


def deploy(server: Supervised, fleet: Fleet, times: int) -> list[float]:
    """Send SIGHUP so often, each time when all have moved; the longest wait of each device."""
    worst: list[float] = []
    fleet.await_answers()
    for number in range(1, times + 1):
        fleet.take_worst()
        server.send(signal.SIGHUP)
        _await_moves(fleet, number)
        worst += fleet.take_worst()
    return worst


def _await_moves(fleet: Fleet, times: int) -> None:
    def has_moved() -> bool:
        sleep(0.05)
        return fleet.moved(times) == fleet.devices or bool(fleet.faults)

    until(has_moved, lambda: f"{fleet.moved(times)} have moved {times} times")


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=5000)
    parser.add_argument("--deploys", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--concurrency", default="fibers")
    parser.add_argument("--replace", action="store_true", help="replace the supervisor too")
    given = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    options = ("--concurrency", given.concurrency, "--max-connections", str(4 * given.devices))
    with tempfile.TemporaryDirectory() as name:
        arguments = (*unique(name), *options)
        with supervised(Path(name), *arguments, workers=given.workers, handler=DEVICE) as server:
            measure(given, Path(name), server, arguments)


def measure(
    given: argparse.Namespace, folder: Path, server: Supervised, arguments: tuple[str, ...]
) -> None:
    """Deploy while the fleet is connected."""
    waits: list[float] = []
    logs = [server.errors]
    with Fleet(server.address, given.devices) as fleet:
        fleet.await_answers()
        fleet.take_worst()
        sleep(2)
        print("at rest:", quantiles(fleet.take_worst()))
        if given.replace:
            for times in range(1, given.deploys + 1):
                fleet.take_worst()
                server = replace(
                    folder, server, 1, *arguments, workers=given.workers, handler=DEVICE
                )
                logs.append(server.errors)
                _await_moves(fleet, times)
                waits += fleet.take_worst()
        else:
            waits = deploy(server, fleet, given.deploys)
    server.end()
    found = [re.search(r"longest pause (\d+) ms", line) for log in logs for line in log]
    pauses = [int(pause[1]) / 1000 for pause in found if pause is not None]
    print("a worker's longest pause of a connection on its way:", quantiles(pauses))
    print("a device's longest wait for an answer at a deploy:", quantiles(waits))
    print(
        f"{given.devices} devices, {given.deploys} deploys, {fleet.answers} messages:"
        f" {len(fleet.faults)} faults"
    )
    print(*fleet.faults[:10], sep="\n")


def quantiles(seconds: list[float]) -> str:
    """The distribution of times, in milliseconds."""
    ordered = sorted(seconds)
    found = [1000 * ordered[int(part * (len(ordered) - 1))] for part in (0.5, 0.99, 1.0)]
    return "median {:.0f} ms, p99 {:.0f} ms, most {:.0f} ms".format(*found)


if __name__ == "__main__":
    main()
