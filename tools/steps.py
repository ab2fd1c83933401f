"""Run steps, a few at a time, with separate outputs; stop all of them together.

A step is a list of commands that run one after the other until one fails. It may need another step,
and starts when that one has passed. Its output is written to a file, and is printed when the step is
over.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from tools.environments import ROOT

RECORDS = ROOT / ".cache/check"  # outputs, and the XML reports of pytest
LIMIT = 1200.0  # seconds that one step may take
GRACE = 10.0  # seconds between signalling processes and killing them
INHERITED = ("EVERSERVE_ENGINE", "EVERSERVE_NATIVE")
NOT_INHERITED = re.compile(
    r"EVERSERVE_|PYTHON(PATH|HOME|DONTWRITEBYTECODE)$|VIRTUAL_ENV$|COV|PYTEST_ADDOPTS$"
)


@dataclass(frozen=True)
class Step:
    """A named part of the checks."""

    name: str
    commands: Sequence[Sequence[str]]
    variables: Mapping[str, str] = field(default_factory=dict)
    needs: str = ""  # the step that must pass before; it is earlier in the list
    xml: Path | None = None  # the report of pytest, if the step runs it


@dataclass(frozen=True)
class Outcome:
    """The outcome of a step."""

    step: Step
    passed: bool
    seconds: float = 0.0
    processor: float = 0.0  # seconds of all its processes
    reason: str = ""


class Crew:
    """Runs steps, `size` at a time, and owns their processes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.outcomes: dict[str, Outcome] = {}
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, steps: Sequence[Step]) -> None:
        """Run them, in their order as far as their needs allow; stop all of them on Ctrl-C."""
        pool = ThreadPoolExecutor(self.size)
        left = list(steps)
        running: set[Future[Outcome]] = set()
        try:
            while left or running:
                running |= {pool.submit(self._run_one, step) for step in self._next(left, running)}
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    outcome = future.result()
                    self.outcomes[outcome.step.name] = outcome
                    show(outcome)
        except BaseException:
            self._signal_all(signal.SIGINT)  # pytest then runs the `finally` of its test
            wait(running, GRACE)
            self._signal_all(signal.SIGKILL)
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _next(self, left: list[Step], running: Sized) -> list[Step]:
        """Remove from the list the steps that may start now, as many as there is room for."""
        ready = [step for step in left if not step.needs or step.needs in self.outcomes]
        chosen = ready[: self.size - len(running)]
        for step in chosen:
            left.remove(step)
        return chosen

    def _run_one(self, step: Step) -> Outcome:
        before = self.outcomes.get(step.needs)
        if self._stopped:
            return Outcome(step, False, reason="stopped")
        if before is not None and not before.passed:
            return Outcome(step, False, reason=f"not run: {step.needs} failed")
        began = time.monotonic()
        log = log_of(step)
        log.parent.mkdir(parents=True, exist_ok=True)
        if step.xml is not None:
            step.xml.unlink(missing_ok=True)
        print(f"... {step.name}", flush=True)
        reason, processor = "", 0.0
        with log.open("wb") as output:
            for command in step.commands:
                reason, used = self._call(command, step.variables, began + LIMIT, output.fileno())
                processor += used
                if reason:
                    break
        return Outcome(step, not reason, time.monotonic() - began, processor, reason)

    def _call(
        self, command: Sequence[str], variables: Mapping[str, str], deadline: float, output: int
    ) -> tuple[str, float]:
        """Run one command: the reason why it failed, or nothing, and its processor seconds."""
        with self._lock:
            if self._stopped:
                return "stopped", 0.0
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**environ(), **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running.add(process)
        limit = max(0.0, deadline - time.monotonic())
        timer = threading.Timer(limit, self._signal, [process, signal.SIGKILL])
        timer.start()
        # It is not reaped yet, so its group still exists: this ends only processes that it started.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        timer.cancel()
        self._signal(process, signal.SIGKILL)
        with self._lock:
            self._running.remove(process)
            used = reap(process)
        if time.monotonic() >= deadline:
            return f"took more than {LIMIT:.0f} s", used
        return f"exit status {process.returncode}" if process.returncode else "", used

    def _signal_all(self, number: signal.Signals) -> None:
        with self._lock:
            self._stopped = True
            running = tuple(self._running)
        for process in running:
            self._signal(process, number)

    def _signal(self, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        """Signal a process, which leads its own session, and all that it started in that session."""
        with self._lock:
            if process in self._running:
                os.killpg(process.pid, number)


def reap(process: subprocess.Popen[bytes]) -> float:
    """Wait for its end. Returns the processor seconds of it and of the children it waited for."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime


def environ() -> dict[str, str]:
    """The caller's environment without the variables that would change the tests."""
    kept = {k: v for k, v in os.environ.items() if k in INHERITED or not NOT_INHERITED.match(k)}
    return {**kept, "PYTHONUNBUFFERED": "1"}


def log_of(step: Step) -> Path:
    return RECORDS / (re.sub(r"[^\w.]+", "-", step.name) + ".txt")


def show(outcome: Outcome) -> None:
    """Print the output of a step, between two lines with its name."""
    output = log_of(outcome.step)
    print(f"\n=== {outcome.step.name} ".ljust(101, "="))
    if output.exists() and not outcome.reason.startswith("not run"):
        sys.stdout.write(output.read_text("utf-8", "replace"))
    print(f"=== {verdict(outcome)}: {outcome.step.name}, {outcome.seconds:.1f} s\n", flush=True)


def verdict(outcome: Outcome) -> str:
    return "passed" if outcome.passed else f"FAILED ({outcome.reason})"


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """During the block, SIGTERM and SIGHUP end the checks as Ctrl-C does.

    SIGINT is caught as well: a shell starts what is to run in the background with that ignored, and
    so it would be in the programs that tests interrupt.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
