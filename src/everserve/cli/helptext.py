"""The help: its groups, and an option for each one of a server.

The options of the servers are those of ``everserve.options``; ``commands`` declares the others.
"""

from __future__ import annotations

from typing import Any

import click

from everserve.cli.parameters import OptionValue
from everserve.defaults import STREAMS
from everserve.options import GROUPS, OPTIONS, Option

__all__ = ["EXAMPLES", "WORDS", "Grouped", "server_options"]

EXAMPLES = """\b
Examples:
  everserve run examples/upper_tcp.py:Upper --bind tcp://127.0.0.1:9999
  everserve run myapp:Handler --bind tcp://*:9999 --bind unix:/run/my.sock
  everserve run myapp:Handler --concurrency threads --grace 30
  everserve run a:Devices=tcp://*:9999 b:Control=unix:/run/b.sock
  EVERSERVE_BIND=udp://*:5140 everserve run collector:Log
"""

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


WORDS = f"{__name__}.words"
"""Where the context of a ``Grouped`` command keeps the words of the command line."""


class Grouped(click.Command):
    """A command whose help has its options in groups; the context keeps its words."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[WORDS] = tuple(args)
        return super().parse_args(ctx, args)

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


def server_options(command: Any) -> Any:
    """Give ``command`` an option for each of ``everserve.options``."""
    for option in reversed([option for option in OPTIONS.values() if option.is_text]):
        dashed = option.name.replace("_", "-")
        words = f"--{dashed}/--no-{dashed}" if option.is_flag else f"--{dashed}"
        kind: Any = None if option.is_flag else OptionValue(option)
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
