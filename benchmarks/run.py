"""Run the benchmarks: interleaved rounds, one core for the server, another for the load.

``python benchmarks/run.py`` or ``python -m benchmarks``; ``--help`` lists the options, README.md
explains the results.
"""

import argparse
import datetime
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

if not __package__:  # run by its path: make the folder importable as a package
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import report
from benchmarks.machine import Interpreter, interpreter, machine
from benchmarks.measure import (
    Failed,
    Figures,
    Settings,
    load_command,
    raise_descriptor_limit,
    run_load,
    served,
)
from benchmarks.peers import PEERS, Peer
from benchmarks.programs import HERE, TLS, CannotStart, install_headers, load
from benchmarks.works import LATENCIES, WORKS, Work, chosen

#: Descriptors of the server and of the load generator that are not for idle connections.
SPARE_DESCRIPTORS = 200

#: From this share of the two cores on, the load of other programs is reported: the figure is too low.
DISTURBED = 0.1


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure everserve beside its peers; results go to benchmarks/results/.",
    )
    add = parser.add_argument
    add("--work", type=_names, metavar="A,B", help=f"only these: {', '.join(WORKS)}, large")
    add("--peers", "--only", type=_names, metavar="A,B", help=f"only these: {', '.join(PEERS)}")
    add("--rounds", type=int, help="how often each server does each work (default: 5)")
    add("--seconds", type=float, help="the measured time of each (default: 1)")
    add("--warmup", type=float, help="seconds under load before that (default: 0.3)")
    add(
        "--again",
        type=int,
        default=2,
        metavar="N",
        help="measure up to N times again when other programs disturb (default: %(default)s)",
    )
    add("--idle", type=int, default=10_000, help="idle connections (default: %(default)s)")
    add("--drips", type=int, default=5000, help="clients that drip (default: %(default)s)")
    add("--quick", action="store_true", help="one short round with 1,000 idle connections")
    add(
        "--python",
        action="append",
        metavar="PATH",
        help="an interpreter for the servers, may be repeated (default: the one that runs this)",
    )
    add("--cores", metavar="A,B", help="core of the server, core of the load")
    add(
        "--output",
        type=Path,
        metavar="DIR",
        help="where results are written (default: benchmarks/results for a complete run; a run "
        "with --quick, --work or --peers only prints them)",
    )
    add(
        "--keep",
        action="store_true",
        help="keep those works of the results in the output directory that are not measured now",
    )
    add(
        "--hold",
        action="store_true",
        help="keep the first chosen server under the load of the first chosen work until Ctrl-C, "
        "to look at it with a profiler",
    )
    return parser


# ---------------------------------------------------------------- settings


def _cores(text: str | None) -> tuple[int | None, int | None]:
    """A core for the server and one for the load, or None for both if there is only one."""
    if not hasattr(os, "sched_setaffinity"):
        print("warning: cannot pin processes to cores here; figures will be noisy")
        return None, None
    available = sorted(os.sched_getaffinity(0))
    cores = [int(core) for core in _names(text)] if text else available[:2]
    if len(cores) == 2 and set(cores) <= set(available):
        return cores[0], cores[1]
    if text:
        raise ValueError(f"--cores {text}: give two of {', '.join(map(str, available))}")
    print("warning: there is only one core; server and load share it, figures mean little")
    return None, None


def settings_of(chosen_options: argparse.Namespace) -> Settings:
    quick = chosen_options.quick
    server_core, load_core = _cores(chosen_options.cores)
    idle = min(chosen_options.idle, 1000) if quick else chosen_options.idle
    possible = raise_descriptor_limit() - SPARE_DESCRIPTORS
    if idle > possible:
        print(f"warning: the limit of open files allows {possible} idle connections, not {idle}")
        idle = possible
    return Settings(
        server_core=server_core,
        load_core=load_core,
        seconds=chosen_options.seconds or (0.3 if quick else 1),
        warmup=chosen_options.warmup if chosen_options.warmup is not None else 0.3,
        idle=idle,
        drips=min(chosen_options.drips, idle),
    )


# ---------------------------------------------------------------- rounds


@dataclass
class Run:
    """The works and peers of one run on one interpreter, and the results so far."""

    interpreter: Interpreter
    settings: Settings
    rounds: int
    works: list[Work]
    only: list[str] | None
    results: report.Results
    again: int = 0
    skipped: set[tuple[str, str]] = field(default_factory=set)
    complained: set[tuple[str, str]] = field(default_factory=set)
    failures: int = 0
    disturbed: int = 0

    def peers(self, work: Work) -> list[Peer]:
        """The peers of a work; a peer chosen by name takes part wherever it can."""
        names = work.peers if self.only is None else self.only
        return [PEERS[name] for name in names if work.mode in PEERS[name].modes]

    def all(self) -> None:
        for number in range(1, self.rounds + 1):
            for work in self.works:
                for peer in self.peers(work):
                    if (peer.name, work.mode) not in self.skipped:
                        self.one(number, work, peer)
        if self.disturbed:
            self.results.note(
                f"{self.disturbed} measurements were disturbed: other programs took more than "
                f"{DISTURBED:.0%} of a core"
            )

    def one(self, number: int, work: Work, peer: Peer) -> None:
        """Measure one server at one work, and print the outcome."""
        print(f"round {number}/{self.rounds}  {work.name:17} {peer.name:27}", end="", flush=True)
        figures = None
        try:
            figures = self._measure(work, peer)
        except CannotStart as reason:
            self.skipped.add((peer.name, work.mode))
            self.results.note(f"{peer.title} was left out: {reason}")
            print(f"left out: {reason}")
            return
        except Failed as reason:
            self.failures += 1
            self.results.note(f"{peer.title} failed in round {number} of {work.name}: {reason}")
            print(f"FAILED: {reason}")
        else:
            print(f"{work.formatted(figures[work.figure]):>12} {work.unit}{_aside(work, figures)}")
        self.results.add(work, peer.name, figures)

    def _measure(self, work: Work, peer: Peer) -> Figures:
        """The least disturbed of several attempts; one is enough if nothing disturbs it."""
        attempts: list[Figures] = []
        for _ in range(1 + self.again):
            attempts.append(self._attempt(work, peer))
            if _others(attempts[-1]) <= DISTURBED:
                break
        figures = min(attempts, key=_others)
        self._note(work, peer, figures)
        return figures

    def _attempt(self, work: Work, peer: Peer) -> Figures:
        with served(peer, work.mode, self.interpreter.path, self.settings) as server:
            figures = work.measure(server, self.settings, work.arguments)
            complaint = server.complaint()
        if complaint and (peer.name, work.name) not in self.complained:
            self.complained.add((peer.name, work.name))
            self.results.note(f"{peer.title} complained during {work.name}: {complaint}")
        return figures

    def _note(self, work: Work, peer: Peer, figures: Figures) -> None:
        if starved := figures.get("starved"):
            self.results.note(
                f"{peer.title} left {starved:.0f} connections without any reply in a round of "
                f"{work.name}"
            )
        if _others(figures) > DISTURBED:
            self.disturbed += 1


def _others(figures: Figures) -> float:
    """How much of a core other programs used; 0 if the figure does not depend on it."""
    return figures.get("others_busy", 0)


def _aside(work: Work, figures: Figures) -> str:
    if work.columns is not LATENCIES:
        columns = [one for one in work.columns if one not in LATENCIES]
        others = "".join(f", {one.formatted(figures[one.figure])} {one.title}" for one in columns)
        return f"{others}{_disturbed(figures)}"
    latency = f", p99 {figures['p99_us'] / 1000:.2f} ms" if figures["p99_us"] else ""
    lost = f", {figures['lost']:.0f} lost" if figures["lost"] else ""
    starved = f", {figures['starved']:.0f} connections starved" if figures["starved"] else ""
    busy = f", busy: server {figures['server_busy']:.0%}, load {figures['load_busy']:.0%}"
    return f"{latency}{lost}{starved}{busy}{_disturbed(figures)}"


def _disturbed(figures: Figures) -> str:
    others = _others(figures)
    return f", DISTURBED: others {others:.0%}" if others > DISTURBED else ""


# ---------------------------------------------------------------- ways to run


def _run_settings(settings: Settings, rounds: int) -> dict[str, object]:
    return {
        "rounds": rounds,
        "seconds": settings.seconds,
        "warmup": settings.warmup,
        "idle": settings.idle,
        "drips": settings.drips,
        "pinned": settings.server_core is not None,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _kept(results: report.Results, path: Path) -> None:
    """Copy from an earlier run on the same machine the works that this run has not measured."""
    earlier = report.load(path)
    if (earlier.machine, earlier.interpreter) != (results.machine, results.interpreter):
        print(
            f"warning: {path.name} is of another machine or other versions; nothing of it is kept"
        )
        return
    results.samples = {**earlier.samples, **results.samples}
    for note in earlier.notes:
        results.note(note)


def measure_all(run_options: argparse.Namespace, python: Interpreter, settings: Settings) -> int:
    """All rounds on one interpreter, then the tables; returns how many measurements failed."""
    rounds = run_options.rounds or (1 if run_options.quick else 5)
    works = chosen(run_options.work or list(WORKS))
    results = report.build(python, machine(), _run_settings(settings, rounds))
    run = Run(python, settings, rounds, works, run_options.peers, results, run_options.again)
    print(f"{python.implementation} {python.python}, everserve's engine: {python.engine}")
    run.all()
    complete = not (run_options.quick or run_options.work or run_options.peers)
    directory = run_options.output or (HERE / "results" if complete else None)
    if directory and run_options.keep and (directory / f"{python.short}.json").exists():
        _kept(results, directory / f"{python.short}.json")
    print()
    print(report.markdown(results))
    if directory:
        for path in report.save(results, directory, python.short):
            print(f"written: {path}")
    return run.failures


def hold(run_options: argparse.Namespace, python: Interpreter, settings: Settings) -> None:
    """One server under one load until Ctrl-C, for a profiler."""
    work = chosen(run_options.work or ["echo"])[0]
    peer = PEERS[(run_options.peers or ["everserve"])[0]]
    with served(peer, work.mode, python.path, settings) as server:
        print(f"{peer.title}: process {server.pid}, port {server.port}; Ctrl-C ends it")
        print("load:", *load_command(server, *work.arguments), flush=True)
        while True:
            figures = run_load(server, settings, *work.arguments)
            print(f"{figures['per_second']:,.0f}/s{_aside(WORKS['echo'], figures)}", flush=True)


def _prepare_tls(run_options: argparse.Namespace) -> None:
    """Install what the chosen works over TLS need, and print a line for what stays missing."""
    works = chosen(run_options.work or list(WORKS))
    if any(work.mode == "tls" for work in works):
        print(*install_headers() or [TLS], sep="\n")


def _leave(number: int, _frame: FrameType | None) -> None:
    """On a signal, exit by an exception, so that each ``finally`` ends its server."""
    raise SystemExit(128 + number)


def _unknown_peers(names: list[str] | None) -> list[str]:
    return [name for name in names or [] if name not in PEERS]


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, or 1 if a measurement failed, 2 for a wrong option, 130 after Ctrl-C.

    A target that is missed is a result, not a failure.
    """
    parser = options()
    run_options = parser.parse_args(arguments)
    if unknown := _unknown_peers(run_options.peers):
        parser.error(f"no peer {', '.join(unknown)}: choose from {', '.join(PEERS)}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    try:
        chosen(run_options.work or [])
        load()
        _prepare_tls(run_options)
        settings = settings_of(run_options)
        pythons = [interpreter(path) for path in run_options.python or [sys.executable]]
        if run_options.hold:
            hold(run_options, pythons[0], settings)
        return 1 if sum([measure_all(run_options, each, settings) for each in pythons]) else 0
    except (CannotStart, Failed, ValueError, KeyError) as error:
        print(f"error: {error.args[0]}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: every server is ended, nothing is written", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
