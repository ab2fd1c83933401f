"""A program may use any name that is new in everserve, for any purpose, and works as before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.collisions.handlers import BASES, HANDLER_PLACES, Notes, handler_trial
from tests.collisions.kinds import (
    EVERSERVE,
    PLACES,
    STANDARD,
    TWO_TRANSPORTS,
    Kind,
    kinds,
    must_pass,
    spread,
    trial,
)
from tests.collisions.values import VALUES, is_an_options

from everserve.options import OPTIONS

SERVER_NAMES = sorted(
    {
        *OPTIONS,
        "access",
        "config",
        "connections",
        "deadline",
        "draining",
        "limits",
        "metrics",
        "options",
        "overload",
        "peer",
        "refusals",
        "reload_tls",
        "resume",
        "running",
        "state",
        "steps",
        "stop",
        "subscribe",
        "suspend",
        "tls",
    }
)
HANDLER_NAMES = [
    "cancelled",
    "coalesce_writes",
    "deadline",
    "max_line",
    "peer",
    "start_tls",
    "truncated",
]


def names_of(kind: Kind) -> list[str]:
    """The names that the standard library's server of that kind does not have."""
    return [name for name in SERVER_NAMES if not hasattr(kind.standard_class, name)]


def own(names: list[str], first: int) -> dict[str, Any]:
    """Values for ``names`` that are not options."""
    attributes = spread(names, VALUES, first)
    return {name: value for name, value in attributes.items() if not is_an_options(name, value)}


IN_FULL = ("everserve-pool-tcp", "everserve-fibers-tcp")
"""All values for every name; some of them on the other kinds: all share the code that reads options."""


def rounds(kind: Kind) -> range:
    """The index of the first name's value, for each trial."""
    return range(kind.number, kind.number + len(VALUES), 1 if str(kind) in IN_FULL else 5)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", kinds())
def test_a_server_with_its_own_values(kind: Kind, place: str, folder: Path) -> None:
    for first in rounds(kind):
        must_pass(
            own(names_of(kind), first), lambda some, limit: trial(kind, folder, place, some, limit)
        )


@pytest.mark.parametrize("place", HANDLER_PLACES)
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", kinds(STANDARD, EVERSERVE))
def test_a_handler_with_its_own_values(
    kind: Kind, base: str, place: str, folder: Path, notes: Notes
) -> None:
    for first in rounds(kind)[::2]:
        must_pass(
            own(HANDLER_NAMES, first),
            lambda some, limit: handler_trial(kind, folder, base, place, some, notes, limit),
        )


# -- what a class defines ------------------------------------------------------------------------


def make_method() -> Any:
    def method(self: Any, *arguments: Any, **keywords: Any) -> str:
        raise AssertionError("everserve has called a method of the program")

    return method


def make_property() -> Any:
    return property(lambda self: "the program's own")


def make_property_of_later() -> Any:
    return property(lambda self: self.what_is_not_there_yet)


def make_property_that_fails() -> Any:
    def fail(self: Any) -> Any:
        raise RuntimeError("not before it is configured")

    return property(fail)


def make_settable_property() -> Any:
    return property(
        lambda self: vars(self).get("own"), lambda self, value: vars(self).update(own=value)
    )


DEFINITIONS = [
    make_method,
    make_property,
    make_property_of_later,
    make_property_that_fails,
    make_settable_property,
    lambda: staticmethod(make_method()),
    lambda: classmethod(make_method()),
]
IDS = ["method", "property", "early", "failing", "settable", "static", "class"]


@pytest.mark.parametrize("make", DEFINITIONS, ids=IDS)
@pytest.mark.parametrize("kind", kinds())
def test_a_server_with_its_own_definitions(
    kind: Kind, make: Callable[[], Any], folder: Path
) -> None:
    attributes = {name: make() for name in names_of(kind)}
    must_pass(attributes, lambda some, limit: trial(kind, folder, "in the class", some, limit))


@pytest.mark.parametrize("make", DEFINITIONS, ids=IDS)
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", kinds(STANDARD, EVERSERVE, transports=TWO_TRANSPORTS))
def test_a_handler_with_its_own_definitions(
    kind: Kind, base: str, make: Callable[[], Any], folder: Path, notes: Notes
) -> None:
    attributes = {name: make() for name in HANDLER_NAMES}
    must_pass(
        attributes,
        lambda some, limit: handler_trial(kind, folder, base, "in the class", some, notes, limit),
    )
