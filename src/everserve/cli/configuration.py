"""The file of options: ``--config server.toml``, or ``[tool.everserve]`` of a pyproject.toml.

Its values become the defaults of the command, so that the command line and the environment, which click
reads after it, take precedence. Each is checked as if it were written on the command line.
"""

from __future__ import annotations

import os
import tomllib
from difflib import get_close_matches
from typing import Any

import click

__all__ = ["PLACE", "use_file"]

PLACE = f"{__name__}.place"
"""Where the context keeps the full path of the file, or of the pyproject.toml that may come."""

PROJECT = "pyproject.toml"
"""Read without ``--config`` too, if it is in this folder and has the table."""

_NAMES = {"targets": "target"}
"""Of the parameters that have another name in a file, the same as in the environment."""


def use_file(ctx: click.Context, param: click.Parameter, path: str | None) -> None:
    """The callback of ``--config``: make the options of the file the defaults of the command.

    Raises ``click.UsageError`` for what cannot be read, for unknown names and for bad values.
    """
    if ctx.resilient_parsing:
        return
    name = PROJECT if path is None else path
    place = ctx.meta.setdefault(PLACE, os.path.abspath(name))  # the process may change its folder
    if path is None and not os.path.isfile(place):
        return
    found = _read(name, place, must_have=path is not None)
    if found:
        ctx.default_map = _checked(ctx, found, name)


def _read(path: str, place: str, *, must_have: bool) -> dict[str, Any]:
    """The table of options; empty for a pyproject.toml without one that need not have it."""
    try:
        with open(place, "rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise click.UsageError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        if not must_have:  # it is not for us to complain of
            return {}
        raise click.UsageError(f"cannot read {path}: {error}") from error
    if os.path.basename(path) != PROJECT:
        return content
    table = content.get("tool", {}).get("everserve")
    if table is None and must_have:
        raise click.UsageError(f"{path} has no table [tool.everserve]")
    if table is not None and not isinstance(table, dict):
        raise click.UsageError(f"{path}: [tool.everserve] is no table")
    return table or {}


def _checked(ctx: click.Context, found: dict[str, Any], path: str) -> dict[str, Any]:
    """The values by the names of the parameters, each checked; so an error names the file."""
    params = {
        _NAMES.get(str(param.name), str(param.name)): param
        for param in ctx.command.params
        if param.name not in ("config", "help")
    }
    checked = {}
    for name, value in found.items():
        param = params.get(name)
        if param is None:
            raise click.UsageError(f"{path}: there is no option {name!r}{_suggest(name, params)}")
        checked[str(param.name)] = _value(ctx, param, value, f"{path}: {name}")
    return checked


def _value(ctx: click.Context, param: click.Parameter, value: Any, where: str) -> Any:
    """The value as the default of ``param``, which click converts again."""
    is_flag = isinstance(param, click.Option) and param.is_flag
    if is_flag is not isinstance(value, bool) or isinstance(value, dict):
        wanted = "true or false" if is_flag else "no true, no false and no table"
        raise click.UsageError(f"{where} = {value!r}: expected {wanted}")
    several = param.multiple or param.nargs == -1
    if several and not isinstance(value, list):
        value = [value]
    elif isinstance(value, list) and not several:
        value = ",".join(map(str, value))  # as the options that name several things are written
    try:
        param.type_cast_value(ctx, value)
    except click.BadParameter as error:
        raise click.UsageError(f"{where}: {error.message}") from error
    return value


def _suggest(name: str, params: dict[str, click.Parameter]) -> str:
    close = get_close_matches(name.replace("-", "_"), params, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
