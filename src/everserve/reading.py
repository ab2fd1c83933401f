"""Attributes that give way to a program's own of the same name.

A subclass written for the standard library may have had its own ``self.connections``, ``stop()`` or
``access()`` for years. What is new on servers and handlers and is computed is a ``Reading``; what is
an option is read through ``option()``; and everserve itself calls none of its new public methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

__all__ = ["Reading", "option"]

ValueT = TypeVar("ValueT")


def option(value: Any, otherwise: Any = None) -> Any:
    """The ``value`` of an option; ``otherwise`` where it is ``None``, or callable.

    No option is that is read so: what can be called there is a program's own method of that name.
    """
    return otherwise if value is None or callable(value) else value


class Reading(Generic[ValueT]):
    """Like ``property``, for reading only; an assignment on the instance takes its place."""

    def __init__(self, read: Callable[[Any], ValueT]) -> None:
        self._read = read
        self.__doc__ = read.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> ValueT: ...
    def __get__(self, instance: object | None, owner: type) -> Self | ValueT:
        return self if instance is None else self._read(instance)
