"""``typing.get_type_hints`` works on all public objects: frameworks for injection or docs use it."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import everserve
from everserve import addresses, errors, events, fibers
from everserve.reading import Reading

FUNCTIONS = [everserve.serve, everserve.make_server, everserve.make_group]
MODULES: list[ModuleType] = [everserve, addresses, errors, events, fibers]
SPECIAL = ("__init__", "__new__", "__call__", "__enter__", "__exit__", "__iter__")


def public() -> Iterator[Any]:
    """Each public class and function, once."""
    named = [getattr(module, name) for module in MODULES for name in module.__all__]
    return iter(dict.fromkeys([*named, everserve.Connection, *FUNCTIONS]))


def methods(owner: type) -> Iterator[tuple[str, Any]]:
    """The annotated functions of a class's public names, those of properties and readings included."""
    for name in dir(owner):
        if name.startswith("_") and name not in SPECIAL:
            continue
        value = inspect.getattr_static(owner, name)
        if isinstance(value, Reading):
            value = value._read
        elif isinstance(value, property):
            value = value.fget
        value = inspect.unwrap(getattr(value, "__func__", value))
        # The __new__ of a named tuple knows no builtins, and the hints are those of the class.
        if inspect.isfunction(value) and not value.__module__.startswith("namedtuple_"):
            yield name, value


def name_of(value: Any) -> str:
    """The name of a test: no address in it, so that it is the same in each process."""
    return f"{value.__module__}.{value.__qualname__}"


CLASSES = [value for value in public() if inspect.isclass(value)]


@pytest.mark.parametrize("value", [v for v in public() if callable(v)], ids=name_of)
def test_a_public_name_has_its_hints(value: Any) -> None:
    assert isinstance(typing.get_type_hints(value), dict)


@pytest.mark.parametrize("owner", CLASSES, ids=name_of)
def test_its_methods_have_theirs(owner: type) -> None:
    failed = {}
    for name, function in methods(owner):
        try:
            typing.get_type_hints(function)
        except Exception as error:
            failed[name] = error
    assert failed == {}


@pytest.mark.parametrize("name", ["StreamRequestHandler", "DatagramRequestHandler"])
def test_a_subclass_has_those_of_its_bases(name: str) -> None:
    class Handler(getattr(everserve, name)):  # type: ignore[misc]
        own: int

    hints = typing.get_type_hints(Handler)
    assert hints["own"] is int
    assert {"request", "client_address", "server"} <= set(hints)


def test_there_is_enough_to_look_at() -> None:
    """The walk above finds methods, properties and readings: an empty walk would prove nothing."""
    found = {name for owner in CLASSES for name, _ in methods(owner)}
    assert {"serve_forever", "connections", "peer", "running", "addresses", "parse", "age"} <= found
