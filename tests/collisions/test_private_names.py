"""A server or a handler of everserve has one private name beside those of the standard library."""

from __future__ import annotations

import socketserver

import pytest
from tests.collisions import private_names
from tests.collisions.kinds import FORKS_AMONG_THREADS
from tests.collisions.sources import OWN


@pytest.fixture(scope="module")
def table() -> dict[str, list[str]]:
    return private_names.table()


@pytest.mark.filterwarnings(FORKS_AMONG_THREADS)
@pytest.mark.parametrize("name", private_names.classes())
def test_there_is_one_private_name_at_most(name: str, table: dict[str, list[str]]) -> None:
    print(f"{name}: {' '.join(table[name])}")
    assert len(table[name]) <= private_names.ALLOWED, table[name]
    assert set(table[name]) <= {OWN}


def test_every_class_of_the_standard_library_is_checked() -> None:
    standard = {name for name in socketserver.__all__ if isinstance(vars(socketserver)[name], type)}
    assert standard <= set(private_names.classes())
