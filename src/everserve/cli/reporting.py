"""What the commands say: the version, the addresses, signals, the end, and each error in one line."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import platform
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import click

from everserve.addresses import Address
from everserve.cli.output import complain, say
from everserve.errors import EverserveError, WorkerError
from everserve.fibers.engines import engine, explain_slow_engine
from everserve.process.signals import RELOAD_SIGNAL
from everserve.server.stop import StopReport

__all__ = [
    "explain",
    "one_line_errors",
    "report_ready",
    "report_signal",
    "report_signal_to_supervisor",
    "report_stop",
    "version_text",
]

_REASONS = {
    errno.EADDRINUSE: "is in use: another server listens there",
    errno.EADDRNOTAVAIL: "is not an address of this machine",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.ENOENT: "no such directory",
    errno.EBADF: "is not open",
    errno.ENOTSOCK: "is not a socket",
}

_OF_PORT = (
    "no permission: a port below 1024 needs root, the capability CAP_NET_BIND_SERVICE,"
    " or a socket that the service manager opens (fd://3)"
)

_ACTS = {
    "SIGINT": "draining (a second signal cuts)",
    "SIGTERM": "draining (a second signal cuts)",
    "SIGQUIT": "cutting",
    "SIGHUP": "loading the code, options and certificates anew",
    "SIGTTIN": "one worker more",
    "SIGTTOU": "one worker less",
    "SIGUSR1": "opening the log files anew",
    "SIGUSR2": "dumping the stacks",
}
"""What a supervisor does at a signal."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Around what a command does: an error is one line, and status 2 for usage, 1 for the system."""
    try:
        yield
    except WorkerError as error:
        raise click.ClickException(str(error)) from error
    except EverserveError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise click.ClickException(explain(error)) from error


def explain(error: OSError) -> str:
    """One line for an error of the system."""
    if isinstance(error, socket.gaierror):
        return f"cannot listen on {error.filename}: there is no host with this name"
    reason = error.strerror or str(error)
    if error.errno and reason == os.strerror(error.errno):  # else everserve has explained it
        reason = _REASONS.get(error.errno, reason)
        if error.errno == errno.EACCES and _is_low_port(str(error.filename)):
            reason = _OF_PORT
    return f"cannot listen on {error.filename}: {reason}" if error.filename else str(error)


def _is_low_port(location: str) -> bool:
    port = location.rpartition(":")[2]
    return port.isdigit() and int(port) < 1024


def version_text() -> str:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{importlib.metadata.version('everserve')} ({engine} engine, {python})"


def report_ready(
    version: str,
    addresses: list[Address],
    *,
    shortage: str | None = None,
    workers: int | None = None,
) -> None:
    say(f"version {version}")
    for notice in (explain_slow_engine(), shortage):
        if notice is not None:
            complain(notice)
    for address in addresses:
        say(f"listening on {address}{_invitation(address)}")
    number = "" if workers is None else f", {workers} workers" if workers > 1 else ", 1 worker"
    say(f"process {os.getpid()}{number}; press Ctrl-C to stop")


def _invitation(address: Address) -> str:
    """A command line to paste, which connects to the server."""
    if address.is_unix:
        if address.path.startswith("\0"):
            return ""
        return f"; talk to it: nc -U{'u' * (address.scheme == 'unixgram')} {address.path}"
    host = address.host or "127.0.0.1"
    if address.scheme == "tls":
        host = f"[{host}]" if ":" in host else host
        return f"; talk to it: openssl s_client -quiet -connect {host}:{address.port}"
    return f"; talk to it: nc {'-u ' * (address.scheme == 'udp')}{host} {address.port}"


def report_signal(number: signal.Signals) -> None:
    if number is RELOAD_SIGNAL:
        say(f"{number.name}: reloading certificates")
    else:
        say(f"{number.name}: draining (a second signal cuts)")


def report_signal_to_supervisor(number: signal.Signals) -> None:
    say(f"{number.name}: {_ACTS[number.name]}")


def report_stop(report: StopReport) -> None:
    say(f"stopped: {report}")
    for connection in report.cut:
        say(f"cut {connection.peer!r} after {connection.age:.1f} s")
    for connection in report.unfinished:
        say(f"still running: {connection.peer!r} after {connection.age:.1f} s")
