"""The programs and their known differences, as `programs.toml` lists them."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

FILE = Path(__file__).with_name("programs.toml")

T = TypeVar("T")

STANDARD = "stdlib"
STRATEGIES = ("threads", "pool", "fibers")


@dataclass(frozen=True)
class Difference:
    """Tests that may end in another way than on the standard library, and the reason."""

    tests: Sequence[str]  # patterns, as in a shell
    reason: str
    strategies: Sequence[str] = STRATEGIES

    def explains(self, strategy: str, test: str) -> bool:
        return strategy in self.strategies and any(
            fnmatch.fnmatchcase(test, pattern) for pattern in self.tests
        )


@dataclass(frozen=True)
class Program:
    """One program: its sdist, what its tests need, and which of them to run."""

    name: str
    version: str
    sha256: str  # of the sdist
    tests: Sequence[str]  # arguments of pytest, in the folder of the sdist
    needs: Sequence[str] = ()  # requirements of the tests
    folder: str = "."  # where pytest starts, in the sdist
    variables: Mapping[str, str] = field(default_factory=dict)
    limit: float = 240.0  # seconds for one run of the tests
    differences: Sequence[Difference] = ()

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def requirement(self) -> str:
        """A line for pip, which refuses any other file."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"

    def explanation(self, strategy: str, test: str) -> Difference | None:
        """The listed difference that this test is an instance of."""
        matching = (one for one in self.differences if one.explains(strategy, test))
        return next(matching, None)


def read(path: Path = FILE) -> list[Program]:
    """All programs of a file. Raises ValueError for one that says what makes no sense."""
    content = tomllib.loads(path.read_text("utf-8"))
    programs = [program_of(table) for table in content["program"]]
    names = [program.name for program in programs]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"listed twice: {', '.join(sorted(twice))}")
    return programs


def program_of(table: dict[str, Any]) -> Program:
    differences = [difference_of(one) for one in table.pop("difference", ())]
    return made(Program, {**table, "differences": differences})


def difference_of(table: dict[str, Any]) -> Difference:
    difference = made(Difference, table)
    unknown = set(difference.strategies) - set(STRATEGIES)
    if unknown or not difference.reason.strip():
        raise ValueError(f"a difference needs a reason, and strategies of {STRATEGIES}: {table}")
    return difference


def made(kind: type[T], table: dict[str, Any]) -> T:
    try:
        return kind(**table)
    except TypeError as error:
        raise ValueError(f"{error}: {table}") from error


def chosen(programs: Sequence[Program], names: Sequence[str]) -> list[Program]:
    """The programs of these names; all without a name. Raises ValueError for an unknown name."""
    unknown = set(names) - {program.name for program in programs}
    if unknown:
        raise ValueError(f"not in {FILE.name}: {', '.join(sorted(unknown))}")
    return [program for program in programs if not names or program.name in names]
