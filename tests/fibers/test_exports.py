"""The public names of `everserve.fibers`: those that the author of a handler needs."""

from __future__ import annotations

import pkgutil

import everserve
from everserve import errors, fibers


def test_all_of_them_exist() -> None:
    scope: dict[str, object] = {}
    exec("from everserve.fibers import *", scope)
    assert set(scope) - {"__builtins__"} == set(fibers.__all__)


def test_errors_are_those_of_the_one_tree() -> None:
    assert fibers.FiberTimeout is errors.FiberTimeout
    assert fibers.HubError is errors.HubError


def test_no_name_means_something_else_in_the_package() -> None:
    assert not set(fibers.__all__) & set(everserve.__all__)
    modules = {module.name for module in pkgutil.iter_modules(fibers.__path__)}
    assert not set(fibers.__all__) & modules
