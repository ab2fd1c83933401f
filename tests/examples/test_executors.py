"""The example that computes elsewhere: each process has its own command, and workers are killed."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("unmeasured")

EXAMPLES = Path(__file__).parents[2] / "examples"
PRIMES = (99_999_989, 99_999_971, 99_999_959, 99_999_941, 99_999_931)
NUMBERS = [a * b for a, b in itertools.combinations(PRIMES, 2)]
LISTENING = r"listening on tcp://127.0.0.1:(\d+)"
LIMIT = 40


@contextmanager
def command(words: str, wanted: str) -> Iterator[tuple[int, int]]:
    """A process, once it has printed ``wanted``: its id, and the number that stands there."""
    environment = {"PYTHONPATH": f"{EXAMPLES}:{os.environ.get('PYTHONPATH', '')}"}
    with subprocess.Popen(
        [sys.executable, "-u", "-m", *words.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | environment,
    ) as process:
        try:
            assert process.stdout is not None
            printed = ""
            while (found := re.search(wanted, printed)) is None:
                line = process.stdout.readline()
                assert line, printed
                printed += line
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield process.pid, int(found[1] if found.groups() else 0)
        finally:
            process.kill()


def served(executor: str) -> str:
    return f"everserve run {EXAMPLES}/factors.py:Factors=tcp://127.0.0.1:0 --executor {executor}"


def compute_while(port: int, disturb: Callable[[], None]) -> None:
    """Four clients have all numbers factored; ``disturb`` is called when the first reply has come."""
    begun = threading.Event()

    def ask(start: int) -> None:
        with socket.create_connection(("127.0.0.1", port), LIMIT) as client:
            lines = client.makefile("rb")
            for number in NUMBERS[start:] + NUMBERS[:start]:
                client.sendall(b"%d\n" % number)
                left, right = map(int, lines.readline().split())
                assert left * right == number
                begun.set()

    with ThreadPoolExecutor(4) as clients:
        asked = [clients.submit(ask, start) for start in range(4)]
        assert begun.wait(LIMIT)
        disturb()
        for one in asked:
            one.result(LIMIT)


def test_a_process_is_killed_under_load() -> None:
    with command(served("processes:2"), LISTENING) as (pid, port):

        def kill_one() -> None:
            tasks = Path(f"/proc/{pid}/task").glob("*/children")
            children = [int(child) for task in tasks for child in task.read_text().split()]
            workers = [child for child in children if b"spawn_main" in _command_of(child)]
            os.kill(workers[0], signal.SIGKILL)

        compute_while(port, kill_one)


def _command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="needs Dask")
def test_a_worker_of_a_cluster_is_killed_under_load() -> None:
    scheduler = "distributed.cli.dask_scheduler --host 127.0.0.1 --port 0 --no-dashboard"
    with command(scheduler, r"Scheduler at:\s+tcp://127.0.0.1:(\d+)") as (_, at):
        line = f"distributed.cli.dask_worker tcp://127.0.0.1:{at} --nthreads 1 --no-nanny"
        worker = f"{line} --no-dashboard"
        with command(worker, "Registered to") as (pid, _), command(worker, "Registered to"):
            with command(served(f"dask://127.0.0.1:{at}"), LISTENING) as (_, port):
                compute_while(port, lambda: os.kill(pid, signal.SIGKILL))
