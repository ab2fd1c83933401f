"""``everserve check``: would ``everserve run`` with these options serve?"""

from __future__ import annotations

from typing import Any

import click

from everserve.cli.commands import everserve, run
from everserve.cli.helptext import EXAMPLES, Grouped
from everserve.cli.output import say
from everserve.cli.plan import places_of, prepare
from everserve.cli.reporting import one_line_errors
from everserve.cli.target import find_handler
from everserve.process.pidfile import check_place
from everserve.serving import check_group

__all__ = ["check"]


@everserve.command(
    cls=Grouped,
    params=run.params,
    epilog=EXAMPLES.replace("everserve run", "everserve check"),
    context_settings=run.context_settings,
)
def check(*, grace: float, pid: str | None, reload: bool, **given: Any) -> None:
    """Say whether `everserve run` would serve with the same options; bind nothing.

    It loads the handlers, reads the configuration, the certificates and the files that are named, and
    looks at the addresses. Exit status 0 if all would do, 2 with one line if not. An address in use is
    no fault: the server that is to be replaced may listen there.
    """
    try:
        with one_line_errors():
            plan = prepare(**given)
            if pid is not None:
                check_place(pid)
            handlers, places = places_of(plan.pairs, find_handler)
            check_group(handlers, *places, concurrency=plan.concurrency, **plan.options)
    except click.UsageError:
        raise
    except click.ClickException as error:  # of the system: it is 2 here too
        raise click.UsageError(error.format_message()) from error
    say(f"{', '.join(address for _, address in plan.pairs)}: would be served")
