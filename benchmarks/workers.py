"""The figures of workers: what they cost beside one process, how soon they accept, what they share.

``python -m benchmarks.workers`` measures all of them, and prints a table with the targets. It needs
Linux, and everserve with its command line in this interpreter.
"""

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.programs import load

CONNECTIONS = 64
IDLE_SECONDS = 10

ECHO = """
import everserve

class Echo(everserve.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
"""

Figure = tuple[str, str, str, bool]
"""A title, the value and the target as texts, and whether it is met."""


class Service:
    """``everserve run``, and the processes below it as proc(5) has them."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, seconds: float) -> None:
        self.process, self.port, self.seconds = process, port, seconds

    def workers(self) -> list[int]:
        """Those that serve: the children of the template, or the one process."""
        templates = children(self.process.pid)
        return [pid for template in templates for pid in children(template)] or [self.process.pid]

    def all(self) -> list[int]:
        """The supervisor, the template and the workers."""
        templates = children(self.process.pid)
        return [self.process.pid, *templates, *(p for one in templates for p in children(one))]

    def processor_seconds(self) -> float:
        return sum(processor_seconds(pid) for pid in self.all())

    def put_load_on(self, seconds: float) -> float:
        """Echo 128 B over all connections for so long. Returns microseconds of processor a request."""
        command = [str(load()), "--port", str(self.port), "--connections", str(CONNECTIONS)]
        before = self.processor_seconds()
        ended = subprocess.run(
            [*command, "--bytes", "128", "--seconds", str(seconds), "--warmup", "0", "echo"],
            capture_output=True,
            text=True,
            check=True,
        )
        spent = self.processor_seconds() - before
        return 1e6 * spent / float(json.loads(ended.stdout)["messages"])


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def processor_seconds(pid: int) -> float:
    """Of all threads, to the nanosecond (schedstat)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def wakeups(pid: int) -> int:
    """How often a thread of the process has run until now."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[2]) for task in tasks)


def private_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


@contextmanager
def serving(*arguments: str) -> Iterator[Service]:
    """``everserve run`` until the block ends; it accepts."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "echo.py")
        file.write_text(ECHO)
        began = time.monotonic()
        command = [sys.executable, "-m", "everserve", "run", f"{file}:Echo", *arguments]
        with subprocess.Popen(
            [*command, "--bind", "tcp://127.0.0.1:0"], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            port = 0
            for line in process.stdout:
                found = re.search(r"listening on tcp://[\d.]+:(\d+)", line)
                port = int(found[1]) if found else port
                if "press Ctrl-C" in line:
                    break
            try:
                yield Service(process, port, time.monotonic() - began)
            finally:
                process.terminate()
                process.stdout.read()  # what it says of its end


def measure_cost(rounds: int, seconds: float) -> Figure:
    """Processor time a request: two workers and one process in turn, medians."""
    with serving() as one, serving("--workers", "2") as two:
        pairs = [(one.put_load_on(seconds), two.put_load_on(seconds)) for _ in range(rounds)]
    alone, shared = (statistics.median(values) for values in zip(*pairs, strict=True))
    title = f"echo of 128 B, 2 workers: {shared:.2f} us a request, one process {alone:.2f} us"
    return title, f"{shared / alone:.3f} x", "<= 1.03 x", shared / alone <= 1.03


def measure_start(rounds: int) -> Figure:
    """From the command to the line that says that all accept; the interpreter's start included."""
    times, processor = [], []
    for _ in range(rounds):
        with serving("--workers", "4") as service:
            times.append(service.seconds)
            processor.append(service.processor_seconds())
    middle = statistics.median(times)
    title = f"start of 4 workers ({statistics.median(processor):.2f} s of processor time)"
    return title, f"{middle:.2f} s", "< 0.6 s", middle < 0.6


def measure_memory() -> Figure:
    with serving() as one:
        alone = private_bytes(one.process.pid)
    with serving("--workers", "4") as four:
        shared = max(map(private_bytes, four.workers()))
    part = shared / alone
    title = f"private memory of a worker: {shared >> 10} KiB, one process {alone >> 10} KiB"
    return title, f"{100 * part:.0f} %", "<= 40 %", part <= 0.4


def measure_idle() -> Figure:
    """The runs of all threads while nothing happens: no more than a beat a second for each process."""
    with serving("--workers", "2") as service:
        time.sleep(1)
        pids = service.all()
        before = [wakeups(pid) for pid in pids]
        time.sleep(IDLE_SECONDS)
        counts = [wakeups(pid) - old for pid, old in zip(pids, before, strict=True)]
    title = f"wake-ups in {IDLE_SECONDS} s: supervisor, template, workers"
    return title, " ".join(map(str, counts)), f"<= {IDLE_SECONDS} each", max(counts) <= IDLE_SECONDS


def measure_balance() -> Figure:
    """Connections of the worker that has most, over the mean, as its descriptors show them."""
    with serving("--workers", "4") as service:
        pids = service.workers()
        before = [sockets_of(pid) for pid in pids]
        with ExitStack() as clients:
            for _ in range(CONNECTIONS):
                client = socket.create_connection(("127.0.0.1", service.port))
                clients.enter_context(client)
                client.sendall(b"here")
                client.recv(100)
            own = [sockets_of(pid) - old for pid, old in zip(pids, before, strict=True)]
    mean = sum(own) / len(own)
    title = f"balance of {CONNECTIONS} connections over 4 workers: {' '.join(map(str, own))}"
    return title, f"{max(own) / mean:.2f} x", "<= 1.5 x", max(own) <= 1.5 * mean


def sockets_of(pid: int) -> int:
    names = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            names.append(os.readlink(link))
        except OSError:
            continue  # closed meanwhile
    return sum(name.startswith("socket:") for name in names)


def main() -> int:
    """Measure, and print a line for each figure. Exit status 1 if one misses its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    given = parser.parse_args()
    figures: tuple[Callable[[], Figure], ...] = (
        lambda: measure_start(given.rounds),
        measure_memory,
        measure_idle,
        measure_balance,
        lambda: measure_cost(given.rounds, given.seconds),
    )
    misses = 0
    for figure in figures:
        title, value, target, met = figure()
        misses += not met
        print(f"{'ok  ' if met else 'MISS'} {title}: {value} (target {target})", flush=True)
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
