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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from everserve.addresses import FORMS, Address
from everserve.cli.configuration import use_file
from everserve.cli.output import LOG, complain, say
from everserve.cli.reloading import serve_with_reload
from everserve.cli.target import find_handler, is_address, split_address
from everserve.combos import CONCURRENCY
from everserve.defaults import STREAMS, explain_shortage
from everserve.errors import AddressError, EverserveError, OptionError, TLSConfigError, WorkerError
from everserve.fibers.engines import engine, explain_slow_engine
from everserve.handlers.base import BaseRequestHandler
from everserve.observe.logs import configure, configure_from, log_events
from everserve.options import GROUPS, OPTIONS, Option
from everserve.process.ending import STATUS
from everserve.process.handover import Control, Predecessor
from everserve.process.identity import Identity
from everserve.process.pidfile import PidFile
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
    located,
    make_group,
)
from everserve.sockets.tls import TLS

__all__ = ["Grouped", "Plan", "everserve", "one_line_errors", "places_of", "prepare", "run"]

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
    "--config": "Process",
    "--user": "Process",
    "--group": "Process",
    "--umask": "Process",
    "--chdir": "Process",
    "--pid": "Process",
    "--reload": "Process",
    "--no-reload": "Process",
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


class _Octal(click.ParamType[int]):
    """Permission bits, as chmod(1) writes them."""

    name = "bits"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            bits = value if isinstance(value, int) else int(value, 8)
        except ValueError:
            bits = -1
        if not 0 <= bits <= 0o777:
            self.fail(f"{value!r}: expected permission bits such as 027", param, ctx)
        return bits


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


class Grouped(click.Command):
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


def _files(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem]:
    """For the completion of a shell: the shell itself knows the files."""
    return [CompletionItem(begun, type="file")]


def _folders(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem]:
    return [CompletionItem(begun, type="dir")]


@everserve.command(
    cls=Grouped,
    epilog=EXAMPLES,
    context_settings={"auto_envvar_prefix": "EVERSERVE", "show_default": True},
)
@click.argument(
    "targets",
    metavar="MODULE:HANDLER[=ADDRESS]...",
    nargs=-1,
    required=True,
    envvar="EVERSERVE_TARGET",
    shell_complete=_files,
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
    shell_complete=_files,
    help="A configuration of Python's logging, .json, .toml or .ini, in place of the other two.",
)
@click.option(
    "--tls-cert",
    metavar="FILE",
    shell_complete=_files,
    help="PEM file: the certificate, for tls:// addresses.",
)
@click.option(
    "--tls-key",
    metavar="FILE",
    shell_complete=_files,
    help="PEM file: its private key; default: in --tls-cert.",
)
@click.option(
    "--tls-password-file",
    metavar="FILE",
    shell_complete=_files,
    help="A file with the password of an encrypted key.",
)
@click.option(
    "--tls-client-ca",
    metavar="FILE",
    shell_complete=_files,
    help="PEM file: the CA of clients' certificates.",
)
@click.option("--tls-alpn", metavar="NAMES", help="Protocols to offer, with commas: 'h2,http/1.1'.")
@click.option(
    "--config",
    metavar="FILE",
    shell_complete=_files,
    is_eager=True,
    expose_value=False,
    callback=use_file,
    help="TOML file with options, by the names they have here; pyproject.toml: [tool.everserve].",
)
@click.option(
    "--user", metavar="NAME", help="Become this user, for good, once the sockets are bound."
)
@click.option("--group", metavar="NAME", help="Become this group; default: that of --user.")
@click.option("--umask", type=_Octal(), help="Permission bits that new files do not get: 027.")
@click.option(
    "--chdir",
    metavar="FOLDER",
    shell_complete=_folders,
    help="Change to this folder before anything is read.",
)
@click.option(
    "--reload/--no-reload",
    default=False,
    help="For development: serve anew when a Python or TOML file changes.",
)
@click.option(
    "--pid",
    metavar="FILE",
    shell_complete=_files,
    help="Write the number of the process to this file.",
)
@_server_options
def run(*, grace: float, pid: str | None, reload: bool, **given: Any) -> int:
    """Serve MODULE:HANDLER, a request handler class, on one or more addresses.

    Several handlers, each with its own addresses: a.py:Devices=tcp://*:9999 b:Control=unix:/run/b.sock.
    One without an address is served at --bind. All run in one process, under the same signals and
    options.

    MODULE is a module on the path or in this folder, or a file (path/file.py:Handler). SIGINT or
    SIGTERM drains: waiting requests are served, running ones may end; a second signal cuts. SIGHUP
    reloads renewed certificates. Each option can be set in the environment, --bind as EVERSERVE_BIND,
    and in a file.
    """
    with one_line_errors():
        if reload:
            return serve_with_reload(given["targets"], folder=given["chdir"])
        plan = prepare(**given)
        if plan.workforce is None:
            report = _serve(plan, grace, pid)
        else:
            report = _supervise(plan, plan.workforce, grace, pid)
    _report_stop(report)
    return 0 if report.complete and not report.unfinished else STATUS


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
        raise click.ClickException(_explain(error)) from error


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be served, and by whom: read and checked, with nothing bound and no handler loaded.

    ``pairs`` are each target with each of its addresses; ``options`` those of ``make_group``.
    """

    pairs: list[tuple[str, str]]
    concurrency: Concurrency
    options: dict[str, Any]
    identity: Identity | None
    workforce: Workforce | None
    replaces: bool


def prepare(
    *,
    targets: tuple[str, ...],
    bind: tuple[str, ...],
    concurrency: Concurrency,
    workers: int | None,
    worker_timeout: float | None,
    max_requests: int | None,
    max_memory: int | None,
    replace: bool,
    log_level: str,
    log_format: str,
    log_config: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    tls_password_file: str | None,
    tls_client_ca: str | None,
    tls_alpn: str | None,
    user: str | None,
    group: str | None,
    umask: int | None,
    chdir: str | None,
    **settings: Any,
) -> Plan:
    """Read what the options of ``run`` name: the folder, the log, the certificates."""
    _stand(chdir, umask)
    identity = Identity.of(user, group)
    _configure_log(log_level, log_format, log_config)
    given = {name: value for name, value in settings.items() if value is not None}
    options: dict[str, Any] = {
        name: None if value is _NONE else value for name, value in given.items()
    }
    options |= _tls(tls_cert, tls_key, tls_password_file, tls_client_ca, tls_alpn)
    worker_timeout = None if worker_timeout is _NONE else worker_timeout
    workforce = make_workforce(workers, worker_timeout, max_requests, max_memory)
    if workforce is None and replace:
        raise OptionError("--replace is about workers: say how many there are, by --workers")
    return Plan(_parted(targets, bind), concurrency, options, identity, workforce, replace)


def _stand(folder: str | None, umask: int | None) -> None:
    """Where the process stands before it reads or makes a file."""
    if folder is not None:
        try:
            os.chdir(folder)
        except OSError as error:
            raise OptionError(f"--chdir {folder}: {error.strerror}") from error
    if umask is not None:
        os.umask(umask)


@contextmanager
def _pid_file(path: str | None, plan: Plan) -> Iterator[None]:
    if path is None:
        yield
        return
    try:
        file = PidFile(path, replaces=plan.replaces)
    except OSError as error:
        raise click.ClickException(f"--pid {path}: {error.strerror}") from error
    try:
        if plan.identity is not None:
            plan.identity.give([file.path])
        yield
    finally:
        file.remove()


def _become(identity: Identity | None, addresses: list[Address]) -> None:
    """Give the socket files away, and root up."""
    if identity is not None:
        identity.give(a.path for a in addresses if a.is_unix and not a.path.startswith("\0"))
        identity.assume()
        unreadable = next((f for f in (os.__file__, __file__) if not os.access(f, os.R_OK)), None)
        if unreadable is not None:
            complain(f"this user cannot read {unreadable}: what is imported from now on fails")


def _serve(plan: Plan, grace: float, pid: str | None) -> StopReport:
    """Serve in this process. Where it becomes another user, it loads the handlers after that."""
    pairs = _each_socket(plan.pairs)
    handlers, places = places_of(pairs, find_handler if plan.identity is None else _no_handler)
    with (
        make_group(handlers, *places, concurrency=plan.concurrency, **plan.options) as group,
        _pid_file(pid, plan),
    ):
        addresses = _addresses_of(group)  # now: a signal may stop the servers as they begin
        shortage = explain_shortage(group.servers)
        version = _version()  # now: the user may not be allowed to read it
        _become(plan.identity, addresses)
        if plan.identity is not None:
            _load_handlers(group, pairs)
        log_events(group)
        return run_servers(
            group,
            grace=grace,
            on_ready=lambda: _report_ready(version, addresses, shortage=shortage),
            on_signal=_report_signal,
        )


def _supervise(plan: Plan, workforce: Workforce, grace: float, pid: str | None) -> StopReport:
    """Serve by workers. They load the handlers: this process binds without them."""
    pairs = _each_socket(plan.pairs)

    def prepare_template(group: ServerGroup[TCPServer]) -> None:
        _load_handlers(group, pairs)
        _reload_certificates(group, plan.identity)
        log_events(group)

    texts = [address for _, address in plan.pairs]
    predecessor = Predecessor.find(texts) if plan.replaces else None
    handlers, places = places_of(pairs, _no_handler)
    with (
        _bind(handlers, places, plan.concurrency, plan.options, predecessor) as group,
        _pid_file(pid, plan),
    ):
        control = (
            Control.open(texts) if predecessor is None else Control(predecessor.control, texts)
        )
        addresses = _addresses_of(group)
        version = _version()
        _become(plan.identity, addresses)
        supervisor = Supervisor(
            group,
            workforce,
            grace=grace,
            prepare=prepare_template,
            on_ready=lambda: _report_ready(version, addresses, workers=workforce.workers),
            on_signal=_report_signal_to_supervisor,
            control=control,
            predecessor=predecessor,
        )
        return supervisor.run()


def _no_handler(target: str) -> Any:
    """In place of a handler that is loaded later."""
    return BaseRequestHandler


def _load_handlers(group: ServerGroup[TCPServer], pairs: list[tuple[str, str]]) -> None:
    found = {target: find_handler(target) for target, _ in pairs}
    give_handlers(group, [found[target] for target, _ in pairs])


def _reload_certificates(group: ServerGroup[TCPServer], identity: Identity | None) -> None:
    """Take renewed ones; those that only root may read stay as they are."""
    try:
        group.reload_tls()
    except TLSConfigError as error:
        if identity is None:
            raise
        logging.getLogger("everserve").error("certificates not renewed: %s", error)


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
    for target, _ in given:
        if is_address(target):
            handler = next((name for name, _ in given if not is_address(name)), "module:Class")
            raise AddressError(
                f"{target!r} is an address, where a handler is expected: write {handler}={target},"
                f" or --bind {target}"
            )
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


def _each_socket(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same with an address for each socket of a ``systemd:NAME``."""
    return [
        (target, str(place))
        for target, address in pairs
        for place in located(Address.parse(address))
    ]


def places_of(
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


def _report_ready(
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
