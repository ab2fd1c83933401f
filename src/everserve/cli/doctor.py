"""``everserve doctor``: what this machine allows, and what to change for so many connections."""

from __future__ import annotations

import click

from everserve.cli.commands import everserve
from everserve.fibers.engines import engine, explain_slow_engine
from everserve.process.machine import Finding, Machine

__all__ = ["doctor"]

_CONTEXT = {"auto_envvar_prefix": "EVERSERVE_DOCTOR", "show_default": True}


@everserve.command(context_settings=_CONTEXT)
@click.option(
    "-n",
    "--connections",
    type=click.IntRange(min=1),
    default=10_000,
    metavar="NUMBER",
    help="The connections that the server is to have at the same time.",
)
def doctor(*, connections: int) -> None:
    """Look at this machine and the limits of this process, and say what to change.

    The table has the engine and the TLS library, and what the system sets for descriptors, queues,
    buffers, ports, memory and threads. It changes nothing. Run it as the server's user, and in its
    container: limits differ.
    """
    findings = [Finding("engine", engine, explain_slow_engine() or "")]
    findings += Machine().examine(connections)
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = "!" if finding.advice else " "
        click.echo(f"{mark} {finding.name:<{width}}  {finding.value}")
        if finding.advice:
            click.echo(f"  {'':<{width}}  -> {finding.advice}")
    count = sum(1 for finding in findings if finding.advice)
    changes = f"{count} to look at" if count else "nothing to change"
    click.echo(f"everserve: {changes} for {connections} connections")
