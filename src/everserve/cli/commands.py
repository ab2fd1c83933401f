"""The command ``everserve run``, and the group of all commands: the options, each declared once."""

from __future__ import annotations

from typing import Any

import click

from everserve.addresses import FORMS
from everserve.cli.configuration import use_file
from everserve.cli.helptext import EXAMPLES, Grouped, server_options
from everserve.cli.operation import serve_by_workers, serve_here
from everserve.cli.parameters import Bits, Number, Size, Timeout, complete_files, complete_folders
from everserve.cli.plan import prepare
from everserve.cli.reloading import serve_with_reload
from everserve.cli.reporting import one_line_errors, report_stop, version_text
from everserve.combos import CONCURRENCY
from everserve.process.ending import STATUS
from everserve.serving import DEFAULT_CONCURRENCY

__all__ = ["everserve", "run"]

_NAMES_OF_HELP = ["-h", "--help"]


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"everserve, version {version_text()}")
        ctx.exit()


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
    shell_complete=complete_files,
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
    type=Number(),
    metavar="NUMBER|auto",
    help="Processes that serve, under one that supervises them; 'auto': one for each core.",
)
@click.option(
    "--worker-timeout",
    type=Timeout(),
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
    type=Size(),
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
    shell_complete=complete_files,
    help="A configuration of Python's logging, .json, .toml or .ini, in place of the other two.",
)
@click.option(
    "--tls-cert",
    metavar="FILE",
    shell_complete=complete_files,
    help="PEM file: the certificate, for tls:// addresses.",
)
@click.option(
    "--tls-key",
    metavar="FILE",
    shell_complete=complete_files,
    help="PEM file: its private key; default: in --tls-cert.",
)
@click.option(
    "--tls-password-file",
    metavar="FILE",
    shell_complete=complete_files,
    help="A file with the password of an encrypted key.",
)
@click.option(
    "--tls-client-ca",
    metavar="FILE",
    shell_complete=complete_files,
    help="PEM file: the CA of clients' certificates.",
)
@click.option("--tls-alpn", metavar="NAMES", help="Protocols to offer, with commas: 'h2,http/1.1'.")
@click.option(
    "--config",
    metavar="FILE",
    shell_complete=complete_files,
    is_eager=True,
    expose_value=False,
    callback=use_file,
    help="TOML file with options, by the names they have here; pyproject.toml: [tool.everserve].",
)
@click.option(
    "--user", metavar="NAME", help="Become this user, for good, once the sockets are bound."
)
@click.option("--group", metavar="NAME", help="Become this group; default: that of --user.")
@click.option("--umask", type=Bits(), help="Permission bits that new files do not get: 027.")
@click.option(
    "--chdir",
    metavar="FOLDER",
    shell_complete=complete_folders,
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
    shell_complete=complete_files,
    help="Write the number of the process to this file.",
)
@server_options
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
            report = serve_here(plan, grace, pid)
        else:
            report = serve_by_workers(plan, plan.workforce, grace, pid)
    report_stop(report)
    return 0 if report.complete and not report.unfinished else STATUS
