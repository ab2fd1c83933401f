"""The engines of fibers, for tests that run on each: the compiled one if it was built, its reference,
and the reference without epoll: level-triggered, over `selectors`.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest
from tests import parts

from everserve.fibers import engines, loop

ENGINES = ("native", "python", "selectors")


def loaded(name: str) -> Any:
    """The parts of an engine; skips the test if it was not built, unless the build insists on it."""
    try:
        return engines.load(name)
    except ImportError:
        if os.environ.get("EVERSERVE_NATIVE") == "yes":
            raise
        pytest.skip("the compiled engine was not built")


def in_place(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The parts of one of `ENGINES`, put in place of the chosen one."""
    if name == "selectors":
        name = "python"
        monkeypatch.setattr(loop, "_EpollPoller", loop._SelectorPoller)
    parts = loaded(name)
    for part in vars(parts).keys() - {"name"}:
        monkeypatch.setattr(engines, part, getattr(parts, part))
    return parts


PARTS_OF_FLOW = {
    "Connection": "lifecycle.{}connection",
    "ConnectionTable": "lifecycle.{}connections",
    "Progress": "lifecycle.{}progress",
    "Flow": "server.{}flow",
}
"""The classes on the path of a connection: one source, which is compiled for one of the engines."""


@pytest.fixture(params=["native", "python"])
def each_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test with the classes of each engine, under the names that its module imports."""
    loaded(request.param)
    prefix = "_" if request.param == "native" else ""
    for name, module in PARTS_OF_FLOW.items():
        part = getattr(importlib.import_module(f"everserve.{module.format(prefix)}"), name)
        for user in (request.module, parts):
            if hasattr(user, name):
                monkeypatch.setattr(user, name, part)
