"""A program may use any private name, also those that everserve uses, as read from its source."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from tests.collisions.handlers import BASES, HANDLER_PLACES, Notes, handler_trial
from tests.collisions.kinds import (
    EVERSERVE,
    PLACES,
    STANDARD,
    Kind,
    kinds,
    must_pass,
    spread,
    trial,
)
from tests.collisions.sources import private_names

NAMES = private_names()


def method(self: Any, *arguments: Any) -> str:
    return "a method of the program"


VALUES = [threading.Event(), 3, None, method]
"""A name gets one of them in each trial, and each of them in the trials of all kinds."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", kinds())
def test_a_server_with_its_own_private_names(kind: Kind, place: str, folder: Path) -> None:
    attributes = spread(NAMES, VALUES, kind.number)
    must_pass(attributes, lambda some, limit: trial(kind, folder, place, some, limit))


def test_the_names_are_found() -> None:
    assert len(NAMES) > 100
    assert all(name.startswith("_") and not name.startswith("__") for name in NAMES)


@pytest.mark.parametrize("place", HANDLER_PLACES)
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", kinds(STANDARD, EVERSERVE))
def test_a_handler_with_its_own_private_names(
    kind: Kind, base: str, place: str, folder: Path, notes: Notes
) -> None:
    attributes = spread(NAMES, VALUES, kind.number)
    must_pass(
        attributes, lambda some, limit: handler_trial(kind, folder, base, place, some, notes, limit)
    )
