"""One measurement: start a server on one core, put load on it from the other, end it.

A server started here always ends: the block that started it ends it by its process id, and if the
runner itself is killed, the kernel ends it.
"""

import ctypes
import functools
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from benchmarks.peers import Peer
from benchmarks.programs import SERVERS, CannotStart, certificate, compiled_c, compiled_go, load

#: Descriptors that a server and the load generator may use; 10,000 connections and some fit.
DESCRIPTORS = 20_000
START_SECONDS = 20
END_SECONDS = 10

#: The load ends by itself after set-up (120 s), warm-up, window and 30 s; only then is it ended.
LOAD_PATIENCE_SECONDS = 180

#: The longest measured time among drips, in seconds: it ends before the drips are due, after 5 s.
DRIPS_SECONDS = 1.5

#: How long idle connections are held at most, in addition to the time of the measurement.
HOLD_SECONDS = 60

Figures = dict[str, float]


class Failed(Exception):
    """The server did not do the work: wrong bytes, lost connections, or it ended."""


@dataclass(frozen=True)
class Settings:
    """The settings of a whole run: core numbers or None (not pinned), times in seconds."""

    server_core: int | None
    load_core: int | None
    seconds: float
    warmup: float
    idle: int
    drips: int = 5000


# ---------------------------------------------------------------- processes


def command_of(peer: Peer, mode: str, interpreter: str) -> list[str]:
    program = SERVERS / peer.program
    build = {".c": compiled_c, ".go": compiled_go}.get(program.suffix)
    start = [interpreter, str(program)] if build is None else [str(build(program))]
    tls = ["--tls", str(certificate())] if mode == "tls" else []
    return [*start, "--port", "0", "--mode", peer.modes[mode], *peer.arguments, *tls]


def _prepare(core: int | None, parent: int) -> None:
    """In the child, before the program: pin it, and make the kernel end it with the runner."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _started(command: list[str], core: int | None, **options: Any) -> subprocess.Popen[str]:
    # In its own session: Ctrl-C reaches only the runner, which then ends its children in order.
    return subprocess.Popen(
        command,
        text=True,
        start_new_session=True,
        preexec_fn=functools.partial(_prepare, core, os.getpid()),
        **options,
    )


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def raise_descriptor_limit() -> int:
    """Let the children open many connections; returns how many descriptors they get."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


# ---------------------------------------------------------------- the server


@dataclass
class Server:
    """A running server, seen from outside through /proc."""

    peer: Peer
    process: subprocess.Popen[str]
    port: int
    errors: IO[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    def processor_seconds(self) -> float:
        """The processor time of all threads, ended ones included, in ticks of 10 ms (proc(5))."""
        self.check()
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        user, system = int(fields[11]), int(fields[12])
        return (user + system) / os.sysconf("SC_CLK_TCK")

    def scheduled(self) -> tuple[float, int]:
        """Of the living threads: seconds on a processor, to the nanosecond, and the number of runs."""
        self.check()
        nanoseconds = times = 0
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            try:
                spent, _, slices = (thread / "schedstat").read_text().split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # a thread that has just ended
            nanoseconds += int(spent)
            times += int(slices)
        return nanoseconds / 1e9, times

    def resident_bytes(self) -> int:
        """The memory in use now. smaps_rollup is exact; the sums in /proc/*/status lag behind."""
        self.check()
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
        raise Failed(f"cannot read the memory of process {self.pid}")

    def peak_bytes(self) -> int:
        """The peak of the memory in use (VmHWM, proc(5))."""
        self.check()
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise Failed(f"cannot read the memory of process {self.pid}")

    def complaint(self) -> str:
        """The last error on its standard error, or the last line there; empty if there is none."""
        self.errors.seek(0)
        lines = [line.strip() for line in self.errors.read().splitlines() if line.strip()]
        errors = [line for line in lines if "Error" in line]
        return (errors or lines or [""])[-1]

    def check(self) -> None:
        if self.process.poll() is not None:
            raise Failed(f"the server ended ({self.process.returncode}): {self.complaint()}")


def _read_port(server: subprocess.Popen[str]) -> int | None:
    """The first line of the server, or None if it ended or did not print a port in time."""
    assert server.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(server.stdout, selectors.EVENT_READ)
        line = server.stdout.readline() if selector.select(START_SECONDS) else ""
    return int(line) if line.strip().isdigit() else None


@contextmanager
def served(peer: Peer, mode: str, interpreter: str, settings: Settings) -> Iterator[Server]:
    """A server in this mode, running and listening inside the block."""
    command = command_of(peer, mode, interpreter)
    with tempfile.TemporaryFile("w+") as errors:
        process = _started(command, settings.server_core, stdout=subprocess.PIPE, stderr=errors)
        try:
            port = _read_port(process)
            server = Server(peer, process, port or 0, errors)
            if port is None:
                _end(process)
                raise CannotStart(server.complaint() or "it printed no port")
            yield server
        finally:
            _end(process)


# ---------------------------------------------------------------- the load


def load_command(server: Server, *arguments: str) -> list[str]:
    program = load(tls="--tls" in arguments)
    return [str(program), *arguments, "--port", str(server.port)]


def _busy_seconds(settings: Settings) -> float:
    """How long the two cores have been busy, with anything, since the machine started (proc(5))."""
    cores = {f"cpu{core}" for core in (settings.server_core, settings.load_core)}
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *counts = line.split()
        if name in cores:
            user, nice, system, _idle, _waiting, *interrupts_and_stolen = map(int, counts[:8])
            ticks += user + nice + system + sum(interrupts_and_stolen)
    return ticks / os.sysconf("SC_CLK_TCK")


def _load_seconds() -> float:
    """Processor time of all load generators that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _checked(output: str, errors: str, server: Server) -> Figures:
    """The figures of a load generator. Raises ``Failed`` if it reports errors."""
    server.check()
    try:
        figures: dict[str, Any] = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):
        raise Failed(errors.strip() or "the load generator printed nothing") from None
    if figures["errors"]:
        raise Failed(f"{figures['errors']} errors, the first: {figures['first_error']}")
    return {name: value for name, value in figures.items() if isinstance(value, int | float)}


def run_load(server: Server, settings: Settings, *arguments: str) -> Figures:
    """Run the load generator to its end.

    Adds, as shares of the time from its start to its end, how busy the server was
    (``server_busy``) and how much of the two cores other programs used (``others_busy``).
    """
    times = ("--seconds", str(settings.seconds), "--warmup", str(settings.warmup))
    command = load_command(server, *arguments, *times)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started, before = time.monotonic(), server.processor_seconds()
    others_before = _busy_seconds(settings) - before - _load_seconds()
    clients = _started(command, settings.load_core, **pipes)
    try:
        output, errors = clients.communicate(timeout=settings.seconds + LOAD_PATIENCE_SECONDS)
    finally:
        _end(clients)
    figures = _checked(output, errors, server)
    passed, after = time.monotonic() - started, server.processor_seconds()
    others = _busy_seconds(settings) - after - _load_seconds() - others_before
    busy = {"server_busy": (after - before) / passed, "others_busy": max(0.0, others / passed)}
    return {**figures, **busy}


# ---------------------------------------------------------------- what a work does to a server

Measure = Callable[[Server, Settings, tuple[str, ...]], Figures]


def steady(server: Server, settings: Settings, arguments: tuple[str, ...]) -> Figures:
    return run_load(server, settings, *arguments)


def among_idle(server: Server, settings: Settings, arguments: tuple[str, ...]) -> Figures:
    """The same connections alone, then among many idle ones, on the same server."""
    alone = run_load(server, settings, *arguments)
    among = run_load(server, settings, *arguments, "--idle", str(settings.idle))
    share = among["per_second"] / alone["per_second"]
    others = max(alone["others_busy"], among["others_busy"])
    return {**among, "alone": alone["per_second"], "share": share, "others_busy": others}


def among_drips(server: Server, settings: Settings, arguments: tuple[str, ...]) -> Figures:
    """The same connections alone, then among clients that drip, on the same server.

    The load generator checks that each drip stays open during the measured time, and is cut when it is
    due. ``peak_mb``: the largest growth of the server's memory during the measurement.
    """
    short = replace(settings, seconds=min(settings.seconds, DRIPS_SECONDS))
    alone = run_load(server, short, "echo", *arguments)
    before = server.resident_bytes()
    among = run_load(server, short, "drip", *arguments, "--drips", str(settings.drips))
    return {
        **among,
        "alone": alone["per_second"],
        "share": among["per_second"] / alone["per_second"],
        "others_busy": max(alone["others_busy"], among["others_busy"]),
        "peak_mb": (server.peak_bytes() - before) / 1e6,
    }


def refused(server: Server, settings: Settings, arguments: tuple[str, ...]) -> Figures:
    """Connections that are refused: ``cpu_us`` is the server's processor time for each."""
    all_of_it = replace(settings, seconds=settings.warmup + settings.seconds, warmup=0)
    before, _ = server.scheduled()
    figures = run_load(server, all_of_it, *arguments)
    after, _ = server.scheduled()
    if figures["starved"] or not figures["messages"]:
        raise Failed(f"{figures['starved']} connections were admitted")
    return {**figures, "cpu_us": (after - before) * 1e6 / figures["messages"]}


def cost(server: Server, settings: Settings, arguments: tuple[str, ...]) -> Figures:
    """``cpu_us``: the server's processor time for each reply, of all its threads."""
    all_of_it = replace(settings, seconds=settings.warmup + settings.seconds, warmup=0)
    before, _ = server.scheduled()
    figures = run_load(server, all_of_it, *arguments)
    after, _ = server.scheduled()
    return {**figures, "cpu_us": (after - before) * 1e6 / figures["messages"]}


def held(server: Server, settings: Settings, arguments: tuple[str, ...]) -> Figures:
    """Many connections that were used once and now wait: memory of each, processor time of all."""
    run_load(server, replace(settings, seconds=0.2, warmup=0.1), *arguments)
    time.sleep(0.2)  # let the server notice that those have closed
    before = server.resident_bytes()
    times = ("--idle", str(settings.idle), "--seconds", str(settings.seconds + HOLD_SECONDS))
    command = load_command(server, "hold", *arguments[1:], *times)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    clients = _started(command, settings.load_core, stderr=sys.stderr, **pipes)
    try:
        assert clients.stdout is not None
        first = clients.stdout.readline()
        if not first.startswith('{"held"'):
            raise Failed("the load generator could not open and use all idle connections")
        time.sleep(0.5)  # let the server finish the work of the last reply
        memory = server.resident_bytes() - before
        spent, slices = server.scheduled()
        started = time.monotonic()
        time.sleep(settings.seconds)
        spent_after, slices_after = server.scheduled()
        passed = time.monotonic() - started
        output, _ = clients.communicate("", timeout=60)
    finally:
        _end(clients)
    _checked(output, "", server)
    return {
        "kilobytes": memory / settings.idle / 1000,
        "cpu_ms": (spent_after - spent) * 1000 / passed,
        "wakeups": (slices_after - slices) / passed,
    }
