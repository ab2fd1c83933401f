"""A program's servers and handlers may define any special methods: ``__eq__``, ``__bool__``, ..."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest
from tests.collisions.handlers import BASES, Notes, handler_trial
from tests.collisions.kinds import EVERSERVE, LIMIT, STANDARD, TWO_TRANSPORTS, Kind, kinds, trial

ItemT = TypeVar("ItemT")


def equals(self: Any, other: Any) -> bool:
    return True


def fails(self: Any, *arguments: Any) -> Any:
    raise RuntimeError("not to be called")


def delegates(self: Any, name: str) -> Any:
    """An attribute of ``self.app``: an endless recursion if it is read before ``app`` exists."""
    return getattr(self.app, name)


def answers_everything(self: Any, name: str) -> Any:
    """Like a mock: any missing attribute is a function."""
    if name.startswith("__") or name in ("rfile", "wfile"):
        raise AttributeError(name)
    return lambda *arguments, **keywords: "a method made on demand"


def watches(self: Any, name: str, value: Any) -> None:
    vars(self).setdefault("assigned", set()).add(name)
    object.__setattr__(self, name, value)


SPECIALS: dict[str, dict[str, Any]] = {
    "equal to all": {"__eq__": equals, "__hash__": None},
    "not to be compared": {"__eq__": fails, "__hash__": fails},
    "false": {"__bool__": lambda self: False},
    "no truth": {"__bool__": fails},
    "empty": {"__len__": lambda self: 0, "__iter__": lambda self: iter(())},
    "callable": {"__call__": fails},
    "no text": {"__repr__": fails, "__str__": fails},
    "delegating": {"__getattr__": delegates},
    "answering": {"__getattr__": answers_everything},
    "watching": {"__setattr__": watches},
    "slots": {"__slots__": ("tls", "_loop", "limits")},
}


@pytest.mark.parametrize("special", SPECIALS)
@pytest.mark.parametrize("kind", kinds(transports=TWO_TRANSPORTS))
def test_a_server_with_special_methods(kind: Kind, special: str, folder: Path) -> None:
    assert trial(kind, folder, "in the class", SPECIALS[special]) is None


@pytest.mark.parametrize("special", SPECIALS)
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", kinds(STANDARD, EVERSERVE, transports=TWO_TRANSPORTS))
def test_a_handler_with_special_methods(
    kind: Kind, base: str, special: str, folder: Path, notes: Notes
) -> None:
    attributes = SPECIALS[special]
    assert handler_trial(kind, folder, base, "in the class", attributes, notes, LIMIT) is None


@pytest.mark.parametrize("kind", kinds(transports=TWO_TRANSPORTS))
def test_an_abstract_and_generic_server(kind: Kind, folder: Path) -> None:
    class Base(kind.server_class, abc.ABC, Generic[ItemT]):  # type: ignore[misc, name-defined]
        @abc.abstractmethod
        def greet(self) -> ItemT: ...

    class Program(Base[bytes]):  # type: ignore[misc]
        def greet(self) -> bytes:
            return b"hello"

    with Program(kind.address(folder), kind.handler()) as server:
        with kind.serving(server):
            assert kind.ask(server, folder) == b"PING\n"
    assert server.greet() == b"hello"
