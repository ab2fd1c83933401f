"""The command line: ``everserve run``, and the entry point of all commands."""

from __future__ import annotations

import sys

from everserve.cli.interruption import STATUS

__all__ = ["main"]


def main() -> None:
    """The entry point. An error is one line on stderr and an exit status, 2 for wrong usage.

    Without the extra ``cli`` the line names the package to install.
    """
    try:
        sys.exit(_run())
    except KeyboardInterrupt:
        sys.exit(STATUS)


def _run() -> int:
    try:
        import click  # noqa: PLC0415
    except ModuleNotFoundError:
        sys.exit("everserve: the command line needs click: pip install 'everserve[cli]'")
    from everserve.cli import check, commands, doctor, output, unit  # noqa: F401, PLC0415

    output.open_standard_descriptors()
    try:
        return int(commands.everserve.main(prog_name="everserve", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.ClickException as error:
        output.complain(error.format_message())
        return error.exit_code
    except BrokenPipeError:  # of the help
        return 1
    except click.Abort:
        return STATUS
    finally:
        output.finish()
