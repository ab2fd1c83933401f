"""What an executor costs a message: the processor time of all processes, and the time to the reply.

    python benchmarks/executors.py

One server after the other echoes lines of 32 B, 16 connections with one line in flight each, and one
client that waits: the time to the reply. Dask is measured where it is installed, with a scheduler and a
worker of its own.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import everserve

CONNECTIONS = 16
ROUNDS = 3
LINE = b"x" * 31 + b"\n"
DASK = "127.0.0.1:8786"
CASES = (
    ("fibers", None),
    ("pool", None),
    ("fibers", "threads:4"),
    ("pool", "threads:4"),
    ("fibers", "interpreters:2"),
    ("fibers", "processes:2"),
    ("pool", "processes:2"),
    ("fibers", f"dask://{DASK}"),
)
TICKS = os.sysconf("SC_CLK_TCK")


class Echo(everserve.LineRequestHandler):
    """The least that a message can cost."""

    idempotent = True

    @staticmethod
    def handle_message(line: bytes) -> bytes:
        return line


def serve(concurrency: Any, executor: Any, ready: Any) -> None:
    """The process of the server. A worker finds the handler in this file, by its name."""
    everserve.serve(
        importlib.import_module(Path(__file__).stem).Echo,
        "tcp://127.0.0.1:0",
        concurrency=concurrency,
        executor=executor,
        on_ready=lambda servers: ready.send(servers[0].server_address),
    )


def processor_time() -> float:
    """Seconds that the descendants of this process have used, those that run now."""
    stats = [_stat(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    parents = {int(fields[0]): int(fields[2]) for fields in stats if fields}
    used = {
        int(fields[0]): (int(fields[12]) + int(fields[13])) / TICKS for fields in stats if fields
    }
    return sum(seconds for pid, seconds in used.items() if _is_ours(pid, parents))


def _stat(entry: Path) -> list[str]:
    try:
        pid, rest = (entry / "stat").read_text().split(" (", 1)
    except OSError:
        return []
    return [pid, *rest.rpartition(") ")[2].split()]


def _is_ours(pid: int, parents: dict[int, int]) -> bool:
    parent = parents.get(pid)
    while parent is not None and parent != os.getpid():
        parent = parents.get(parent)
    return parent is not None


def exchange(clients: list[socket.socket], number: int) -> None:
    for _ in range(number):
        for client in clients:
            client.sendall(LINE)
        for client in clients:
            assert client.recv(100) == LINE


def measure(address: tuple[str, int], messages: int) -> tuple[float, float]:
    """Microseconds: of processors for a message, and until the reply where one client asks."""
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(address)) for _ in range(CONNECTIONS)
        ]
        exchange(clients, 10)
        before = processor_time()
        exchange(clients, messages // CONNECTIONS)
        used = processor_time() - before
        times = []
        for _ in range(100):
            began = time.perf_counter()
            exchange(clients[:1], 1)
            times.append(time.perf_counter() - began)
    return used / messages * 1e6, statistics.median(times) * 1e6


@contextmanager
def cluster() -> Iterator[None]:
    """A scheduler and a worker of Dask."""
    commands = (
        ["scheduler", "--host", "127.0.0.1", "--port", DASK.rpartition(":")[2], "--no-dashboard"],
        ["worker", f"tcp://{DASK}", "--nthreads", "2", "--no-nanny", "--no-dashboard"],
    )
    start = [sys.executable, "-c", "from dask.__main__ import main; main()"]
    environment = os.environ | {
        "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"
    }
    processes = [
        subprocess.Popen([*start, *command], stderr=subprocess.DEVNULL, env=environment)
        for command in commands
    ]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run(concurrency: str, executor: str | None, messages: int) -> tuple[float, float]:
    """The medians of the rounds, each with a server of its own."""
    context = multiprocessing.get_context("spawn")
    results = []
    for _ in range(ROUNDS):
        ours, theirs = context.Pipe()
        server = context.Process(target=serve, args=(concurrency, executor, theirs))
        server.start()
        try:
            results.append(measure(ours.recv(), messages))
        finally:
            server.terminate()
            server.join()
    processors, waits = zip(*results, strict=True)
    return statistics.median(processors), statistics.median(waits)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--messages", type=int, default=8000, help="of a round; Dask a tenth")
    messages = options.parse_args().messages
    print(f"{'concurrency':12} {'executor':24} {'processors':>12} {'to the reply':>14}")
    for concurrency, executor in CASES:
        is_dask = executor is not None and executor.startswith("dask:")
        if is_dask and importlib.util.find_spec("distributed") is None:
            continue
        if executor == "interpreters:2" and sys.version_info < (3, 14):
            continue
        with ExitStack() as stack:
            if is_dask:
                stack.enter_context(cluster())
            used, wait = run(concurrency, executor, messages // 10 if is_dask else messages)
        print(
            f"{concurrency:12} {executor or 'none':24} {used:9.0f} us {wait:11.0f} us", flush=True
        )


if __name__ == "__main__":
    main()
