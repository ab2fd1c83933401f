"""Each setting of a server is an option in the one table, and has a type."""

from __future__ import annotations

from typing import Any

import pytest
from tests.collisions.private_names import classes
from tests.collisions.values import TYPED

from everserve.options import OPTIONS

NO_KNOBS = {"active_children", "address_family", "socket_type", "timeout"}
"""Attributes of the standard library's servers that ``serve`` does not take."""


def test_the_type_of_each_option_is_known() -> None:
    assert sorted(set(OPTIONS) - TYPED) == []


def test_each_typed_option_is_in_the_table() -> None:
    assert sorted(TYPED - set(OPTIONS)) == []


@pytest.mark.parametrize("name", [name for name in classes() if not name.endswith("Handler")])
def test_each_public_attribute_of_a_class_is_an_option(name: str) -> None:
    made: Any = classes()[name]
    attributes = {one for one in dir(made) if not one.startswith("_") and is_value(made, one)}
    assert sorted(attributes - NO_KNOBS - set(OPTIONS)) == []


def is_value(made: Any, name: str) -> bool:
    value = getattr(made, name)
    return not callable(value) and not hasattr(type(value), "__get__")
