"""The parameter types of the command line: each checks a text as the library checks the value."""

from __future__ import annotations

import re
from typing import Any

import click
from click.shell_completion import CompletionItem

from everserve.errors import OptionError
from everserve.options import Option
from everserve.process.workforce import Workforce, read_workers

__all__ = [
    "NONE",
    "Bits",
    "Number",
    "OptionValue",
    "Size",
    "Timeout",
    "complete_files",
    "complete_folders",
]

NONE: Any = object()
"""The value of an option that is to be ``None``, which click takes for one that is not given."""


class OptionValue(click.ParamType[Any]):
    """The check of an everserve option, as a parameter type of click."""

    name = "value"

    def __init__(self, option: Option) -> None:
        self._option = option

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "none" and self._option.may_be_none:
            return NONE
        try:
            return self._option.check(value)
        except OptionError as error:  # click adds the name of the option itself
            self.fail(str(error).removeprefix(f"{self._option.name} = "), param, ctx)


class Bits(click.ParamType[int]):
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


class Number(click.ParamType[int]):
    """The number of workers."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return read_workers(int(value) if str(value).isdecimal() else value)
        except OptionError as error:
            self.fail(str(error).removeprefix("workers = "), param, ctx)


class Size(click.ParamType[int]):
    """Bytes, or KiB, MiB and GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"([1-9]\d*)([KMG]?)", str(value).upper())
        if found is None:
            self.fail(f"{value!r}: expected bytes, such as 500M", param, ctx)
        return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2]]


class Timeout(click.ParamType[float | None]):
    """The seconds of ``worker_timeout``, or ``none``."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "none":
            return NONE
        try:
            return Workforce(workers=1, worker_timeout=float(value)).worker_timeout
        except OptionError as error:
            self.fail(str(error).removeprefix("worker_timeout = "), param, ctx)
        except ValueError:
            self.fail(f"{value!r}: expected seconds, from 2 up", param, ctx)


def complete_files(ctx: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem]:
    """For the completion of a shell: the shell itself knows the files."""
    return [CompletionItem(begun, type="file")]


def complete_folders(
    ctx: click.Context, param: click.Parameter, begun: str
) -> list[CompletionItem]:
    return [CompletionItem(begun, type="dir")]
