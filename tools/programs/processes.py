"""The processes that the check starts: each has a limit, and all can be stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.environments import ROOT
from tools.steps import environ

GRACE = 15.0  # seconds for pytest to write its report when it has reached its limit


class Stopped(Exception):
    """The check was stopped, so no other process starts."""


class Processes:
    """Starts processes, each with a session of its own, and owns them."""

    def __init__(self, grace: float = GRACE) -> None:
        self._grace = grace
        self._running: set[int] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(
        self,
        command: Sequence[str],
        variables: Mapping[str, str],
        output: Path,
        limit: float,
        folder: Path = ROOT,
    ) -> str:
        """Run a command; its output goes to a file. Returns how it ended; nothing for status 0.

        After ``limit`` seconds it gets SIGINT, and is killed when it does not end. In any case all
        that it started in its session ends with it.
        """
        with output.open("wb") as file, self._lock:
            if self._stopped:
                raise Stopped
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**environ(), **variables},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running.add(process.pid)
        late = self._wait(process.pid, limit)
        with self._lock:
            self._running.remove(process.pid)
            os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
        if late:
            return f"took more than {limit:.0f} s"
        return f"ended with status {status}" if status else ""

    def stop(self) -> None:
        """End all processes, and start no others."""
        with self._lock:
            self._stopped = True
            for pid in self._running:
                os.killpg(pid, signal.SIGKILL)

    def _wait(self, pid: int, limit: float) -> bool:
        """Wait for its end. Returns whether it took longer than the limit.

        It is not reaped here, so its process group exists, and belongs to no one else, until `run`
        has ended what is left of it.
        """
        late = threading.Event()

        def interrupt() -> None:
            late.set()
            self._signal(pid, signal.SIGINT)

        timers = [
            threading.Timer(limit, interrupt),
            threading.Timer(limit + self._grace, self._signal, [pid, signal.SIGKILL]),
        ]
        for timer in timers:
            timer.start()
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        for timer in timers:
            timer.cancel()
        return late.is_set()

    def _signal(self, pid: int, number: signal.Signals) -> None:
        with self._lock:
            if pid in self._running:
                os.kill(pid, number)
