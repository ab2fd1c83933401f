"""Attributes that a program may replace with its own, and a safe way to read a program's attributes.

A subclass written for the standard library may have had its own ``self.connections`` or ``stop()``
for years. So each new computed attribute of servers and handlers is a ``Reading``, and everserve
itself uses none of its new public names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

__all__ = ["DefaultInt", "InstanceReading", "Reading", "attribute_of"]

ValueT = TypeVar("ValueT")


def attribute_of(owner: object, name: str, otherwise: Any = None) -> Any:
    """An attribute; ``otherwise`` if there is none, or if it is a property that raises."""
    try:
        return getattr(owner, name, otherwise)
    except Exception:  # it may need an attribute that the program has not set yet
        return otherwise


class DefaultInt(int):
    """The default of a class attribute: distinguishable from the same number set by a program."""


class Reading(Generic[ValueT]):
    """Like ``property``, for reading only; an assignment on the instance replaces it."""

    def __init__(self, read: Callable[[Any], ValueT]) -> None:
        self._read = read
        self.__doc__ = read.__doc__
        self.__wrapped__ = read  # for `inspect.unwrap`

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> ValueT: ...
    def __get__(self, instance: object | None, owner: type) -> Self | ValueT:
        return self if instance is None else self._read(instance)


class InstanceReading(Reading[ValueT]):
    """A ``Reading`` that is ``None`` on the class, as the standard library's attribute is."""

    @overload  # type: ignore[override]
    def __get__(self, instance: None, owner: type) -> None: ...
    @overload
    def __get__(self, instance: object, owner: type) -> ValueT: ...
    def __get__(self, instance: object | None, owner: type) -> ValueT | None:
        return None if instance is None else self._read(instance)
