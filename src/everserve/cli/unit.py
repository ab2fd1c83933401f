"""``everserve unit``: systemd units for a command line of ``everserve run``."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from everserve.addresses import Address
from everserve.cli.commands import everserve, run
from everserve.cli.helptext import WORDS, Grouped
from everserve.cli.output import say
from everserve.cli.reporting import one_line_errors
from everserve.cli.target import split_address
from everserve.defaults import MAX_CONNECTIONS, SHARE
from everserve.errors import AddressError
from everserve.process.units import Service, Socket

__all__ = ["unit"]

_OF_UNITS = (
    *(
        "targets",
        "bind",
        "user",
        "group",
        "umask",
        "chdir",
        "pid",
        "reload",
        "replace",
        "name",
        "into",
    ),
    *("socket_mode", "dual_stack", "allow_reuse_port", "allow_reuse_address"),
)
"""The parameters that become lines of the units, and are left out of the command."""


@everserve.command(
    cls=Grouped,
    params=[
        click.Option(["--name"], help="The name of the units; default: that of the module."),
        click.Option(
            ["--into"], metavar="FOLDER", help="Write the units to files there, and print none."
        ),
        *run.params,
    ],
    context_settings=run.context_settings,
)
@click.pass_context
def unit(ctx: click.Context, /, *, name: str | None, into: str | None, **given: Any) -> None:
    """Print systemd units, a service and its sockets, for a command line of `everserve run`.

    systemd opens the sockets, so the service begins without root, and a restart refuses no one.
    --user, --group, --umask, --chdir and --socket-mode become lines of the units. Without --user the
    service gets a user of its own.
    """
    with one_line_errors():
        service = _service(ctx, name or _name_of(given["targets"][0]), given)
        texts = {f"{socket.name}.socket": socket.text() for socket in service.sockets}
        texts = {f"{service.name}.service": service.text()} | texts
        for file, text in texts.items():
            if into is None:
                click.echo(f"# /etc/systemd/system/{file}\n{text}")
            else:
                Path(into, file).write_text(text)
                say(f"wrote {os.path.join(into, file)}")


def _name_of(target: str) -> str:
    place = split_address(target)[0].rpartition(":")[0]
    stem = os.path.basename(place).removesuffix(".py").rpartition(".")[2]
    return re.sub(r"[^\w-]", "-", stem, flags=re.ASCII) or "everserve"


def _service(ctx: click.Context, name: str, given: dict[str, Any]) -> Service:
    if not re.fullmatch(r"[\w-]+", name, re.ASCII):
        raise click.UsageError(f"--name {name}: letters, digits, '-' and '_' only")
    targets, sockets = _sockets(name, given)
    folder = os.path.abspath(given["chdir"] or os.curdir)
    wanted = given["max_connections"]
    most = (wanted if isinstance(wanted, int) else MAX_CONNECTIONS) * len(sockets)
    return Service(
        name=name,
        command=(*_program(), *targets, *_words(ctx)),
        folder=folder,
        sockets=sockets,
        user=given["user"],
        group=given["group"],
        umask=given["umask"],
        grace=given["grace"],
        descriptors=1 << int(most / SHARE).bit_length(),
        reloads=bool(given["tls_cert"] or given.get("workers")),
    )


def _sockets(name: str, given: dict[str, Any]) -> tuple[list[str], list[Socket]]:
    """The targets and addresses of the command that serves the sockets, and these."""
    words: list[str] = []
    sockets: list[Socket] = []
    for target, own in map(split_address, given["targets"]):
        for address in given["bind"] if own is None else (own,):
            own_name = f"{name}-{len(sockets) + 1}" if sockets else name
            sockets.append(_socket(own_name, name, Address.parse(address), given))
            words.append(f"{target}=systemd:{own_name}")
    secure = {socket.address.scheme == "tls" for socket in sockets}
    if len(secure) > 1:
        raise AddressError("tls:// beside others: give each its own unit, a certificate is for all")
    return words, sockets


def _socket(name: str, service: str, address: Address, given: dict[str, Any]) -> Socket:
    lines: list[str] = []
    if address.is_unix:
        mode = given["socket_mode"]
        lines += [] if not isinstance(mode, int) else [f"SocketMode={mode:04o}"]
        lines += [f"SocketUser={given['user']}"] if given["user"] else []
        lines += [f"SocketGroup={given['group']}"] if given["group"] else []
        folder = given["chdir"] or os.curdir
        if not address.path.startswith("\0"):
            address = replace(address, path=os.path.join(os.path.abspath(folder), address.path))
    else:
        lines += ["NoDelay=yes"] if address.scheme != "udp" else []
        lines += ["ReusePort=yes"] if given["allow_reuse_port"] else []
        if given["dual_stack"] is not None:
            lines += [f"BindIPv6Only={'both' if given['dual_stack'] else 'ipv6-only'}"]
    if isinstance(given["request_queue_size"], int):
        lines += [f"Backlog={given['request_queue_size']}"]
    return Socket(name, service, address, tuple(lines))


def _program() -> tuple[str, ...]:
    """The command that runs now, by its full path."""
    if os.path.basename(sys.argv[0]) == "everserve" and os.path.isfile(sys.argv[0]):
        return os.path.abspath(sys.argv[0]), "run"
    return sys.executable, "-m", "everserve", "run"


def _words(ctx: click.Context) -> list[str]:
    """The options of the command line that the command keeps, as they were written."""
    written, _, _ = ctx.command.make_parser(ctx).parse_args(list(ctx.meta[WORDS]))
    words: list[str] = []
    for param in ctx.command.get_params(ctx):
        name = str(param.name)
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if name in _OF_UNITS or (not given and name != "config") or name not in written:
            continue
        if isinstance(param, click.Option) and param.is_flag:
            words.append(param.opts[-1] if written[name] else param.secondary_opts[-1])
        else:
            words += [param.opts[-1], written[name]]
    return words
