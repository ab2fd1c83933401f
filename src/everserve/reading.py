"""An attribute that is computed, and that gives way to a program's own of the same name.

Servers and handlers make what is new of such: a subclass written for the standard library may have
had its own ``self.connections`` or ``self.state`` for years, and a ``property`` would refuse the
assignment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

__all__ = ["Reading"]

ValueT = TypeVar("ValueT")


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
