"""The commands and their options, each declared once."""

from __future__ import annotations

import errno
import importlib.metadata
import logging
import os
import platform
import re
import signal
import socket
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click
from click.core import ParameterSource

from everserve.addresses import FORMS, Address
from everserve.cli.output import LOG, complain, say
from everserve.cli.target import find_handler, split_address
from everserve.combos import CONCURRENCY
from everserve.defaults import STREAMS
from everserve.errors import AddressError, EverserveError, OptionError, WorkerError
from everserve.fibers.engines import engine, explain_slow_engine
from everserve.handlers.base import BaseRequestHandler
from everserve.observe.logs import configure, configure_from, log_events
from everserve.options import GROUPS, OPTIONS, Option
from everserve.process.ending import STATUS
from everserve.process.handover import Control, Predecessor
from everserve.process.run import run as run_servers
from everserve.process.signals import RELOAD_SIGNAL
from everserve.process.supervisor import Supervisor
from everserve.process.workforce import Workforce, make_workforce, read_workers
from everserve.server.group import ServerGroup
from everserve.server.stop import StopReport
from everserve.server.tcp import TCPServer
from everserve.serving import (
    DEFAULT_CONCURRENCY,
    Concurrency,
    bind_group,
    give_handlers,
    make_group,
)
from everserve.sockets.tls import TLS

__all__ = ["everserve"]

EXAMPLES = """\b
Examples:
  everserve run examples/upper_tcp.py:Upper --bind tcp://127.0.0.1:9999
  everserve run myapp:Handler --bind tcp://*:9999 --bind unix:/run/my.sock
  everserve run myapp:Handler --concurrency threads --grace 30
  everserve run a:Devices=tcp://*:9999 b:Control=unix:/run/b.sock
  EVERSERVE_BIND=udp://*:5140 everserve run collector:Log
"""

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

_GROUPS = {
    "--bind": "Network",
    "--concurrency": "Requests",
    "--workers": "Workers",
    "--worker-timeout": "Workers",
    "--max-requests": "Workers",
    "--max-memory": "Workers",
    "--replace": "Workers",
    "--grace": "Requests",
    "--log-level": "Logging",
    "--log-format": "Logging",
    "--log-config": "Logging",
    "--tls-cert": "TLS",
    "--tls-key": "TLS",
    "--tls-password-file": "TLS",
    "--tls-client-ca": "TLS",
    "--tls-alpn": "TLS",
}
"""Where the options stand in the help that are not in the table of options."""

_DEFAULTS = {
    "max_connections": "10000, at most 80 % of the descriptors",
    "overload": "reset in fibers and threads, if no limit that waits is given",
    "coalesce_writes": "on for fibers",
    "daemon_threads": "on for pool",
    "allow_reuse_address": "on for tcp:// and tls://",
    "disable_nagle_algorithm": "on for tcp:// and tls://",
    "dual_stack": "on for *",
}
"""Of the options whose default depends on the strategy or the address."""


_ACTS = {
    "SIGINT": "draining (a second signal cuts)",
    "SIGTERM": "draining (a second signal cuts)",
    "SIGQUIT": "cutting",
    "SIGHUP": "loading the code and certificates anew",
    "SIGTTIN": "one worker more",
    "SIGTTOU": "one worker less",
    "SIGUSR1": "opening the log files anew",
    "SIGUSR2": "dumping the stacks",
}
"""What a supervisor does at a signal."""

_NONE: Any = object()
"""The value of an option that is to be ``None``, which click takes for one that is not given."""


class _Value(click.ParamType[Any]):
    """The check of an everserve option, as a parameter type of click."""

    name = "value"

    def __init__(self, option: Option) -> None:
        self._option = option

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "none" and self._option.may_be_none:
            return _NONE
        try:
            return self._option.check(value)
        except OptionError as error:  # click adds the name of the option itself
            self.fail(str(error).removeprefix(f"{self._option.name} = "), param, ctx)


class _Workers(click.ParamType[int]):
    """The number of workers."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return read_workers(int(value) if str(value).isdecimal() else value)
        except OptionError as error:
            self.fail(str(error).removeprefix("workers = "), param, ctx)


class _Size(click.ParamType[int]):
    """Bytes, or KiB, MiB and GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"([1-9]\d*)([KMG]?)", str(value).upper())
        if found is None:
            self.fail(f"{value!r}: expected bytes, such as 500M", param, ctx)
        return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2]]


class _Timeout(click.ParamType[float | None]):
    """The seconds of ``worker_timeout``, or ``none``."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "none":
            return _NONE
        try:
            return Workforce(workers=1, worker_timeout=float(value)).worker_timeout
        except OptionError as error:
            self.fail(str(error).removeprefix("worker_timeout = "), param, ctx)
        except ValueError:
            self.fail(f"{value!r}: expected seconds, from 2 up", param, ctx)


def _server_options(command: Any) -> Any:
    """Give ``command`` an option for each of ``everserve.options``."""
    for option in reversed([option for option in OPTIONS.values() if option.is_text]):
        dashed = option.name.replace("_", "-")
        words = f"--{dashed}/--no-{dashed}" if option.is_flag else f"--{dashed}"
        kind: Any = None if option.is_flag else _Value(option)
        text = f"{option.help}{_default_of(option)}"
        command = click.option(words, option.name, type=kind, default=None, help=text)(command)
    return command


def _default_of(option: Option) -> str:
    """The default, as click writes those that it knows; nothing if the text of the option says it."""
    value = _DEFAULTS.get(option.name, STREAMS.get(option.name))
    if value is None:
        if "default" in option.help:
            return ""
        value = option.default
        if option.is_flag:
            value = "on" if value else "off"
        elif not isinstance(value, int | float):
            value = "none"
    return f"  [default: {value}]"


class _Grouped(click.Command):
    """A command whose help has its options in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {group: [] for group in (*GROUPS, "Help")}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                groups[_group_of(param)].append(record)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records)


def _group_of(param: click.Parameter) -> str:
    option = OPTIONS.get(param.name or "")
    return _GROUPS.get(param.opts[-1], "Help") if option is None else option.group


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"everserve, version {_version()}")
        ctx.exit()


def _version() -> str:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{importlib.metadata.version('everserve')} ({engine} engine, {python})"


_NAMES_OF_HELP = ["-h", "--help"]


@click.group(
    epilog=EXAMPLES,
    context_settings={"max_content_width": 100, "help_option_names": _NAMES_OF_HELP},
)
@click.option(
    "-V",
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and the engine, and exit.",
)
def everserve() -> None:
    """Serve any socketserver request handler: in fibers, threads, processes, or one after the other."""


@everserve.command(
    cls=_Grouped,
    epilog=EXAMPLES,
    context_settings={"auto_envvar_prefix": "EVERSERVE", "show_default": True},
)
@click.argument(
    "targets",
    metavar="MODULE:HANDLER[=ADDRESS]...",
    nargs=-1,
    required=True,
    envvar="EVERSERVE_TARGET",
)
@click.option(
    "-b",
    "--bind",
    multiple=True,
    default=["tcp://127.0.0.1:9999"],
    metavar="ADDRESS",
    help=f"Where to listen; may be given again and again. {FORMS}.",
)
@click.option(
    "--concurrency",
    type=click.Choice(CONCURRENCY),
    default=DEFAULT_CONCURRENCY,
    help="Where requests run.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=5.0,
    metavar="SECONDS",
    help="How long requests in progress may go on after the first SIGINT or SIGTERM.",
)
@click.option(
    "--workers",
    type=_Workers(),
    metavar="NUMBER|auto",
    help="Processes that serve, under one that supervises them; 'auto': one for each core.",
)
@click.option(
    "--worker-timeout",
    type=_Timeout(),
    default=30.0,
    metavar="SECONDS",
    help="How long the accept loop of a worker may stand before it is killed and replaced.",
)
@click.option(
    "--max-requests",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    help="Replace a worker that has accepted so many, and up to a tenth more.",
)
@click.option(
    "--max-memory",
    type=_Size(),
    metavar="BYTES",
    help="Replace a worker that has more memory in use; 'K', 'M' and 'G' may follow the number.",
)
@click.option(
    "--replace",
    "replace_",
    is_flag=True,
    help="Take over the listeners of the server that has workers at the same addresses.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="warning",
    help="What to log, on stderr; 'debug' has every connection.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="How.")
@click.option(
    "--log-config",
    metavar="FILE",
    help="A configuration of Python's logging, .json, .toml or .ini, in place of the other two.",
)
@click.option("--tls-cert", metavar="FILE", help="PEM file: the certificate, for tls:// addresses.")
@click.option(
    "--tls-key", metavar="FILE", help="PEM file: its private key; default: in --tls-cert."
)
@click.option(
    "--tls-password-file", metavar="FILE", help="A file with the password of an encrypted key."
)
@click.option("--tls-client-ca", metavar="FILE", help="PEM file: the CA of clients' certificates.")
@click.option("--tls-alpn", metavar="NAMES", help="Protocols to offer, with commas: 'h2,http/1.1'.")
@_server_options
def run(
    targets: tuple[str, ...],
    bind: tuple[str, ...],
    concurrency: Concurrency,
    grace: float,
    workers: int | None,
    worker_timeout: float | None,
    max_requests: int | None,
    max_memory: int | None,
    replace_: bool,
    log_level: str,
    log_format: str,
    log_config: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    tls_password_file: str | None,
    tls_client_ca: str | None,
    tls_alpn: str | None,
    **settings: Any,
) -> int:
    """Serve MODULE:HANDLER, a request handler class, on one or more addresses.

    Several handlers, each with its own addresses: a.py:Devices=tcp://*:9999 b:Control=unix:/run/b.sock.
    One without an address is served at --bind. All run in one process, under the same signals and
    options.

    MODULE is a module on the path or in this folder, or a file (path/file.py:Handler). SIGINT or
    SIGTERM drains: waiting requests are served, running ones may end; a second signal cuts. SIGHUP
    reloads renewed certificates. Each option can be set in the environment: --bind as EVERSERVE_BIND.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    chosen: dict[str, Any] = {
        name: None if value is _NONE else value for name, value in given.items()
    }
    try:
        _configure_log(log_level, log_format, log_config)
        chosen |= _tls(tls_cert, tls_key, tls_password_file, tls_client_ca, tls_alpn)
        worker_timeout = None if worker_timeout is _NONE else worker_timeout
        workforce = make_workforce(workers, worker_timeout, max_requests, max_memory)
        if workforce is None and replace_:
            raise OptionError("--replace is about workers: say how many there are, by --workers")
        if workforce is None:
            report = _serve(targets, bind, concurrency, grace, chosen)
        else:
            report = _supervise(targets, bind, concurrency, grace, workforce, replace_, chosen)
    except WorkerError as error:
        raise click.ClickException(str(error)) from error
    except EverserveError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise click.ClickException(_explain(error)) from error
    _report_stop(report)
    return 0 if report.complete and not report.unfinished else STATUS


def _serve(
    targets: tuple[str, ...],
    bind: tuple[str, ...],
    concurrency: Concurrency,
    grace: float,
    chosen: dict[str, Any],
) -> StopReport:
    """Serve in this process."""
    handlers, places = _places(_parted(targets, bind), find_handler)
    with make_group(handlers, *places, concurrency=concurrency, **chosen) as group:
        log_events(group)
        addresses = _addresses_of(group)  # now: a signal may stop the servers as they begin
        return run_servers(
            group,
            grace=grace,
            on_ready=lambda: _report_ready(addresses),
            on_signal=_report_signal,
        )


def _supervise(
    targets: tuple[str, ...],
    bind: tuple[str, ...],
    concurrency: Concurrency,
    grace: float,
    workforce: Workforce,
    replaces: bool,
    chosen: dict[str, Any],
) -> StopReport:
    """Serve by workers. They load the handlers: this process binds without them."""
    pairs = _parted(targets, bind)

    def prepare(group: ServerGroup[TCPServer]) -> None:
        found = {target: find_handler(target) for target, _ in pairs}
        give_handlers(group, [found[target] for target, _ in pairs])
        group.reload_tls()
        log_events(group)

    texts = [address for _, address in pairs]
    predecessor = Predecessor.find(texts) if replaces else None
    handlers, places = _places(pairs, lambda target: BaseRequestHandler)
    with _bind(handlers, places, concurrency, chosen, predecessor) as group:
        control = (
            Control.open(texts) if predecessor is None else Control(predecessor.control, texts)
        )
        addresses = _addresses_of(group)
        supervisor = Supervisor(
            group,
            workforce,
            grace=grace,
            prepare=prepare,
            on_ready=lambda: _report_ready(addresses, workforce.workers),
            on_signal=_report_signal_to_supervisor,
            control=control,
            predecessor=predecessor,
        )
        return supervisor.run()


def _bind(
    handlers: Any,
    places: tuple[str, ...],
    concurrency: Concurrency,
    chosen: dict[str, Any],
    predecessor: Predecessor | None,
) -> ServerGroup[TCPServer]:
    """The servers, over the listeners of the supervisor that they replace."""
    if predecessor is None:
        return make_group(handlers, *places, concurrency=concurrency, **chosen)
    options: Any = chosen
    return bind_group(handlers, places, concurrency, options, predecessor.take)


def _parted(targets: tuple[str, ...], bind: tuple[str, ...]) -> list[tuple[str, str]]:
    """Each target with each address at which it is served."""
    given = [split_address(target) for target in targets]
    if len(given) > 1 or given[0][1] is not None:
        _must_use(bind, given)
    pairs = [
        (target, address) for target, own in given for address in (bind if own is None else (own,))
    ]
    addresses = [address for _, address in pairs]
    for address in addresses if len(given) > 1 else ():
        if addresses.count(address) > 1:
            raise AddressError(
                f"two handlers for {address}: give each its own, as in module:Class=ADDRESS"
            )
    return pairs


def _places(
    pairs: list[tuple[str, str]], find: Callable[[str], Any]
) -> tuple[Any, tuple[str, ...]]:
    """The arguments of ``make_group``: a handler and its addresses, or a handler for each address."""
    found = {target: find(target) for target in dict.fromkeys(target for target, _ in pairs)}
    if len(found) == 1:
        return found[pairs[0][0]], tuple(address for _, address in pairs)
    return {address: found[target] for target, address in pairs}, ()


def _must_use(bind: tuple[str, ...], pairs: list[tuple[str, str | None]]) -> None:
    """Raise ``AddressError`` for a ``--bind`` that was given, and that no handler is for."""
    source = click.get_current_context().get_parameter_source("bind")
    given = source is not click.core.ParameterSource.DEFAULT
    if given and all(address is not None for _, address in pairs):
        raise AddressError(f"--bind {bind[0]}: each handler has an address of its own already")


def _configure_log(level: str, form: str, config: str | None) -> None:
    """Send the records of the whole program to stderr in one form, or where a file says."""
    warnings.showwarning = _log_warning
    if config is None:
        configure(level=level, form=form, stream=LOG, name="")
        return
    context = click.get_current_context()
    given = [
        f"--{name.replace('_', '-')}"
        for name in ("log_level", "log_format")
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    ]
    if given:
        raise OptionError(
            f"--log-config has the level and the form: leave out {' and '.join(given)}"
        )
    configure_from(config)


def _log_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any
) -> None:
    """In place of ``warnings.showwarning``: one line of the log."""
    log = logging.getLogger("py.warnings")
    log.warning("%s: %s (%s, line %d)", category.__name__, message, filename, lineno)


def _tls(
    cert: str | None,
    key: str | None,
    password_file: str | None,
    client_ca: str | None,
    alpn: str | None,
) -> dict[str, TLS]:
    """The option ``tls``, if there is a certificate."""
    if cert is None:
        if key or password_file or client_ca or alpn:
            raise OptionError(
                "--tls-key, --tls-password-file, --tls-client-ca and --tls-alpn go with --tls-cert"
            )
        return {}
    names = [name.strip() for name in (alpn or "").split(",") if name.strip()]
    password = None if password_file is None else lambda: _password_in(password_file)
    return {"tls": TLS(cert, key, password=password, client_ca=client_ca, alpn=names)}


def _password_in(path: str) -> bytes:
    """The first line of the file; read at each load, as the key may have been renewed."""
    with open(path, "rb") as file:
        return file.readline().rstrip(b"\r\n")


def _explain(error: OSError) -> str:
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


def _addresses_of(group: ServerGroup[TCPServer]) -> list[Address]:
    addresses = []
    for server in group.servers:
        address = Address.of(server.socket)
        if server.tls is not None and server.implicit_tls and address.scheme == "tcp":
            address = replace(address, scheme="tls")
        addresses.append(address)
    return addresses


def _report_ready(addresses: list[Address], workers: int | None = None) -> None:
    say(f"version {_version()}")
    notice = explain_slow_engine()
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


def _report_signal(number: signal.Signals) -> None:
    if number is RELOAD_SIGNAL:
        say(f"{number.name}: reloading certificates")
    else:
        say(f"{number.name}: draining (a second signal cuts)")


def _report_signal_to_supervisor(number: signal.Signals) -> None:
    say(f"{number.name}: {_ACTS[number.name]}")


def _report_stop(report: StopReport) -> None:
    say(f"stopped: {report}")
    for connection in report.cut:
        say(f"cut {connection.peer!r} after {connection.age:.1f} s")
    for connection in report.unfinished:
        say(f"still running: {connection.peer!r} after {connection.age:.1f} s")
