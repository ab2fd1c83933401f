"""The command line: ``everserve run``, and the entry point of all commands."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """The entry point. An error is one line on stderr and an exit status, 2 for wrong usage.

    Without the extra ``cli`` the line names the package to install.
    """
    try:
        import click  # noqa: PLC0415
    except ModuleNotFoundError:
        sys.exit("everserve: the command line needs click: pip install 'everserve[cli]'")
    from everserve.cli.commands import everserve  # noqa: PLC0415

    try:
        status = everserve.main(prog_name="everserve", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        status = 0
    except click.ClickException as error:
        click.echo(f"everserve: {error.format_message()}", err=True)
        status = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        status = 130
    sys.exit(status)
